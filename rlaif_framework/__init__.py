"""Reinforcement learning from AI feedback: a pipeline of plugins.

This package exports what Python callers (`run`, `label`, `load_policy` and others) and most plugins need. Subpackages
such as `rlaif_framework.models`, `training`, `rl`, `prompting` and `data` export the rest. Names are imported on first
use, so `import rlaif_framework` is fast.
"""


def __getattr__(name: str) -> object:
    """Read the public names from the stub beside this file, and import the one that is asked for."""
    # Not at import: the command imports this package before it can handle Ctrl-C.
    import lazy_loader

    space = globals()
    space["__getattr__"], space["__dir__"], space["__all__"] = lazy_loader.attach_stub(__name__, __file__)
    return space["__all__"] if name == "__all__" else space["__getattr__"](name)


def __dir__() -> list[str]:
    return list(__getattr__("__all__"))  # type: ignore[call-overload]
