"""Frozen records that flow between components. May import `config`, `progress`, `store` and what is below; no torch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
