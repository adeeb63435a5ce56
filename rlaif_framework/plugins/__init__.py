"""Components that plugins offer, and how plugins are found. May import `contracts` and below; no torch.

`discovery` finds plugins and checks the versions that they require, `checks` checks what a loaded plugin offers,
`targets` imports the classes of components and checks their methods, `config_returns` validates what the methods of
their configs return, `failures` describes errors in plugin code, and `builtins` lists the modules of the package's own
plugins.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
