"""Reinforcement learning from AI feedback, as a small engine and plugins.

The names here are what a plugin author needs; more are in the rooms: `rlaif_framework.models`, `training`, `rl`,
`prompting`, `metrics` and `data`. A name is imported when it is first used, so `import rlaif_framework` is fast.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
