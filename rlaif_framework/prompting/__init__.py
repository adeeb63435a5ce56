"""Drive labelers and prompt strategies. May import `assembly` and the rooms below it; no torch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
