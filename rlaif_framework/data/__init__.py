"""Rows and prompts of tasks; may import `records` and the packages below it, but not torch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
