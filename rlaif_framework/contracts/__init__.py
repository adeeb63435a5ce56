"""The interfaces of components, stages and lifecycle hooks. May import `data` and below."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
