"""Models, estimators and training steps that the algorithms share.

May import `report` and the rooms below it, but not `pipeline`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
