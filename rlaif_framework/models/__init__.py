"""Models and tokenizers: everything that uses transformers. May import `spec` and below."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
