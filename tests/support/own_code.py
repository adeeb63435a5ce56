"""Models that bring Python code of their own, and leave a mark where it runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

CONFIG = """\
from pathlib import Path
from transformers import LlamaConfig

Path({mark!r}).touch()


class OwnConfig(LlamaConfig):
    model_type = "own_llama"
"""

MODEL = """\
from transformers import LlamaForCausalLM
from .configuration_own import OwnConfig


class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def save_own_code(base: Path, folder: Path, mark: Path) -> Path:
    """Copy a Llama, and give it code that touches `mark` when it is imported."""
    shutil.copytree(base, folder)
    (folder / "configuration_own.py").write_text(CONFIG.format(mark=str(mark)))
    (folder / "modeling_own.py").write_text(MODEL)
    config = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    config |= {"model_type": "own_llama", "architectures": ["OwnForCausalLM"], "auto_map": auto_map}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
