"""Models, estimators and training steps that algorithms share; may import `report` and the packages below it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
