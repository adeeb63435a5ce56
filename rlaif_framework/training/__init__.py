"""Loop, checkpoints, batches, losses and sampling that all trainers share.

May import `prompting`, `metrics` and the rooms below them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
