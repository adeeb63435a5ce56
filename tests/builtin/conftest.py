"""Fixtures of the remote backend's tests."""

from support.remote import alone as alone
from support.remote import build as build
from support.remote import clock as clock
from support.remote import local as local
