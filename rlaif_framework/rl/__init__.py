"""Models, estimators and training steps that the algorithms share.

A step samples and scores responses (`rollouts`, the missing-EOS penalty included), turns them into targets
(`experience`, with the formulas in `estimators`) and updates the models (`policy_gradient`, `learner`). Between steps,
the policy is evaluated (`checkpoint_selection`) and watched for reward hacking (`alarm`).
May import `report` and the packages below it, but not `pipeline`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
