"""The interfaces of components, stages and lifecycle hooks; may import `data` and the packages below it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
