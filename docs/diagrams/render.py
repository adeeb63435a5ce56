"""Render the Mermaid sources in this folder to SVG: python docs/diagrams/render.py, after a change of a `.mmd` file.

Needs npm, Chromium and a network. The SVG files are committed, so neither the site nor its readers need any of these.
"""

from __future__ import annotations

import hashlib
import html
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
MERMAID = "mermaid@11.17.2"
# Labels as SVG text: HTML inside SVG is not drawn by every viewer. The fixed id prefix keeps the output reproducible.
PAGE = """<!doctype html><meta charset="utf-8"><body><pre id="source">{source}</pre><div id="out"></div>
<script src="{script}"></script><script>
mermaid.initialize({{startOnLoad: false, theme: "neutral", htmlLabels: false, deterministicIds: true,
  fontFamily: "sans-serif",
  flowchart: {{htmlLabels: false, curve: "linear", nodeSpacing: 40, rankSpacing: 25, padding: 8}}}});
mermaid.render("{name}", document.getElementById("source").textContent)
  .then(({{svg}}) => {{ document.getElementById("out").innerHTML = svg; }});
</script></body>"""


def main() -> None:
    """Render every source whose drawing is stale."""
    stale = find_stale()
    if not stale:
        return
    with tempfile.TemporaryDirectory() as folder:
        script = fetch_mermaid(Path(folder))
        for source in stale:
            source.with_suffix(".svg").write_text(render(source, script, Path(folder)), encoding="utf-8")
            print(f"wrote {source.with_suffix('.svg').name}")


def find_stale() -> list[Path]:
    """Return the sources that have no drawing, or one of an earlier version."""
    return [source for source in sorted(FOLDER.glob("*.mmd")) if not is_fresh(source)]


def is_fresh(source: Path) -> bool:
    """Return True if the drawing names the hash of its source."""
    drawing = source.with_suffix(".svg")
    return drawing.exists() and hash_source(source) in drawing.read_text(encoding="utf-8")


def hash_source(source: Path) -> str:
    """Hash the text of a source."""
    return hashlib.sha256(source.read_bytes()).hexdigest()[:16]


def fetch_mermaid(folder: Path) -> Path:
    """Download Mermaid from the npm registry and return the path of its script."""
    subprocess.run(["npm", "pack", "--silent", MERMAID], cwd=folder, check=True, capture_output=True)
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as package:
        package.extract("package/dist/mermaid.min.js", folder, filter="data")
    return folder / "package/dist/mermaid.min.js"


def render(source: Path, script: Path, folder: Path) -> str:
    """Draw one source in headless Chromium."""
    page = folder / f"{source.stem}.html"
    text = html.escape(source.read_text(encoding="utf-8"))
    page.write_text(PAGE.format(source=text, script=script.as_uri(), name=source.stem), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
    done = subprocess.run(["chromium", *flags, page.as_uri()], check=True, capture_output=True, text=True)
    found = re.search(r'<div id="out">(<svg.*</svg>)</div>', done.stdout, re.S)
    if found is None:
        raise SystemExit(f"{source.name}: Mermaid drew nothing; try the source in its live editor")
    # A white ground keeps the drawing readable on a dark page.
    svg = found[1].replace('style="', 'style="background: white; ', 1)
    return f"<!-- {source.name} {hash_source(source)}; written by docs/diagrams/render.py -->\n{to_xml(svg)}\n"


def to_xml(svg: str) -> str:
    """Close the tags that HTML leaves open."""
    return re.sub(r"<br>", "<br/>", svg)


if __name__ == "__main__":
    main()
