"""Open HTTP clients that use the proxies of the environment."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatch
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from rlaif_framework import ModelError


def open_client(urls: Sequence[str], headers: dict[str, str], concurrency: int) -> httpx2.AsyncClient:
    """Open a client for servers, which uses the proxies of the environment.

    Raises:
        ModelError: The proxy of a server cannot be used.
    """
    # `concurrency` limits the requests; the client's default of 100 connections might be lower.
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=concurrency)
    # Only the proxies that are needed, so that one that cannot be used does not matter to a server of NO_PROXY.
    proxies = {url: proxy for url in urls if (proxy := find_proxy(url)) is not None}
    # Reading the certificates takes longer than many a request.
    uses_tls = bool(proxies) or any(url.startswith("https:") for url in urls)
    return httpx2.AsyncClient(
        headers=headers,
        timeout=None,  # `Transport` limits the whole exchange, the client only each read
        transport=httpx2.AsyncHTTPTransport(limits=limits, verify=uses_tls),
        mounts={_mount(url): _open_proxy(*proxy, limits) for url, proxy in proxies.items()},
    )


def _mount(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _open_proxy(name: str, proxy: str, limits: httpx2.Limits) -> httpx2.AsyncHTTPTransport:
    try:
        return httpx2.AsyncHTTPTransport(proxy=proxy, limits=limits)
    except (ImportError, ValueError, httpx2.InvalidURL):
        # The address is not shown, since it may contain a password.
        raise ModelError(
            f"backend 'openai': the proxy of {name} cannot be used (http:// and https:// proxies can, socks5:// and "
            "socks5h:// with the package 'socksio'); set another proxy, unset the variable, or add the server to "
            "NO_PROXY"
        ) from None


def find_proxy(url: str) -> tuple[str, str] | None:
    """Return the environment variable with the proxy for a URL, and the proxy; None if the URL needs none."""
    parts = urlsplit(url)
    proxies = getproxies()
    if _is_excluded(parts.hostname or "", parts.netloc, proxies.get("no", "")):
        return None
    for scheme in (parts.scheme, "all"):
        if proxy := proxies.get(scheme):
            return f"{scheme.upper()}_PROXY", proxy if "://" in proxy else f"http://{proxy}"
    return None


def _is_excluded(host: str, netloc: str, no_proxy: str) -> bool:
    """Return True if NO_PROXY lists a host: by its name or address, a suffix of its name, or a network."""
    entries = [entry.strip().lower() for entry in no_proxy.split(",")]
    if proxy_bypass(netloc) or any("*" in entry and fnmatch(host, entry) for entry in entries):
        return True
    with suppress(ValueError):  # the host is a name
        address = ipaddress.ip_address(host)
        for entry in entries:
            with suppress(ValueError):  # the entry is a name
                if address in ipaddress.ip_network(entry.strip("[]"), strict=False):
                    return True
    return False
