"""Conformance tests and fixtures for the authors of plugins. Needs pytest; nothing else imports this package."""

import lazy_loader

try:
    import pytest
except ModuleNotFoundError as error:
    if error.name != "pytest":
        raise
    raise ImportError(
        "rlaif_framework.testing needs pytest; install it: pip install 'rlaif-framework[testing]'"
    ) from error

# Before the modules are imported, so that a failed assertion shows its values.
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{name}"
        for name in (
            "algorithms",
            "backends",
            "component",
            "labelers",
            "metrics",
            "rewards",
            "strategies",
            "tasks",
            "trackers",
        )
    )
)

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
