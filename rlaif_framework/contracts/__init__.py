"""What components do, are handed, and may give back. May import `data` and the rooms below it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
