"""Numbers computed from records alone: agreement, calibration, win rates. May import `assembly` and below; no torch.

Every rate and mean gets its confidence interval in `estimates`, except for those that human labels correct, in
`correction`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
