"""Frozen records that components exchange; may import `config`, `progress`, `store` and the modules below them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
