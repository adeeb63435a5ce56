"""Shared by all trainers: loop, checkpoints, batches, losses. May import `prompting`, `metrics` and what is below."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
