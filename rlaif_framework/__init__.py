"""Reinforcement learning from AI feedback: a pipeline of plugins.

This package exports what most plugins need. Subpackages such as `rlaif_framework.models`, `training`, `rl`, `prompting`
and `data` export the rest. Names are imported on first use, so `import rlaif_framework` is fast.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
