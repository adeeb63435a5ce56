"""Run labelers and prompt strategies. May import `assembly` and the packages below it; no torch.

The texts of the prompts are data: see `rlaif_framework.data.annotator_prompts` and the YAML files of the tasks.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
