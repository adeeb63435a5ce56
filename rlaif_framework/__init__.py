"""Reinforcement learning from AI feedback, as a small engine and plugins.

Everything a plugin author needs is a name of this module. Names that need torch are imported when first used, so that
`import rlaif_framework` stays fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rlaif_framework.asking import AnswerCache, Outcome, average_ballots, first_questions, run_coroutines, side_by_side
from rlaif_framework.component import (
    AlgorithmSlot,
    BackendSlot,
    Component,
    ComponentConfig,
    Config,
    LabelerSlot,
    ModelLoad,
    RewardSlot,
    Slot,
    StrategySlot,
    TaskSlot,
    default_component,
)
from rlaif_framework.context import Context
from rlaif_framework.errors import (
    DataError,
    MissingPackageError,
    ModelError,
    PluginError,
    RlaifError,
    SpecError,
    TrainingError,
    suggest,
)
from rlaif_framework.hookspecs import hookimpl
from rlaif_framework.jsonl import read_rows, write_rows
from rlaif_framework.loading import load_spec
from rlaif_framework.model_source import ModelSource, find_model
from rlaif_framework.pairs import read_pair
from rlaif_framework.plugins import Plugin, Registry
from rlaif_framework.protocols import Algorithm, Backend, Labeler, PromptStrategy, Reward, RewardModel, Task
from rlaif_framework.seeds import derive_seed
from rlaif_framework.spec import DType, LoraSettings, PolicyConfig, Spec
from rlaif_framework.splits import Row, Splits, read_splits
from rlaif_framework.text import copy_rate, cut_source, cut_text
from rlaif_framework.types import (
    Annotation,
    Answer,
    Asked,
    Ballot,
    Choose,
    Comparison,
    Evidence,
    Generate,
    LabelledComparison,
    Preference,
    Prompt,
    Question,
    Reply,
    Request,
    Split,
    Vote,
)
from rlaif_framework.words import Exemplar, Words, flatten

if TYPE_CHECKING:
    from rlaif_framework.branching import count_common, share_prefixes
    from rlaif_framework.engine import PlannedStep, Run, plan_spec, run_spec
    from rlaif_framework.generation import read_groups, read_prefix
    from rlaif_framework.losses import kl_estimates, selective_logprobs, soft_label_loss
    from rlaif_framework.models import add_lora, compute_dtype, load_model, load_tokenizer, save_model
    from rlaif_framework.packing import Group, Packed, pack_groups, split_by_tokens
    from rlaif_framework.pipeline import Step
    from rlaif_framework.policy import (
        Sample,
        encode_prompt,
        encode_response,
        group_samples,
        response_logprobs,
        sample_responses,
    )
    from rlaif_framework.scoring import ScoreModel
    from rlaif_framework.stage import Stage, read_metrics
    from rlaif_framework.store import Store
    from rlaif_framework.training import accumulate, draw_batch, my_share, train_steps

_LAZY = {
    "count_common": "branching",
    "share_prefixes": "branching",
    "PlannedStep": "engine",
    "Run": "engine",
    "plan_spec": "engine",
    "run_spec": "engine",
    "read_groups": "generation",
    "read_prefix": "generation",
    "kl_estimates": "losses",
    "selective_logprobs": "losses",
    "soft_label_loss": "losses",
    "add_lora": "models",
    "compute_dtype": "models",
    "load_model": "models",
    "load_tokenizer": "models",
    "save_model": "models",
    "Group": "packing",
    "Packed": "packing",
    "pack_groups": "packing",
    "split_by_tokens": "packing",
    "Step": "pipeline",
    "Sample": "policy",
    "encode_prompt": "policy",
    "encode_response": "policy",
    "group_samples": "policy",
    "response_logprobs": "policy",
    "sample_responses": "policy",
    "ScoreModel": "scoring",
    "Stage": "stage",
    "read_metrics": "stage",
    "Store": "store",
    "accumulate": "training",
    "draw_batch": "training",
    "my_share": "training",
    "train_steps": "training",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"rlaif_framework.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'rlaif_framework' has no attribute '{name}'")


__all__ = [
    "Algorithm",
    "AlgorithmSlot",
    "Annotation",
    "Answer",
    "AnswerCache",
    "Asked",
    "Backend",
    "BackendSlot",
    "Ballot",
    "Choose",
    "Comparison",
    "Component",
    "ComponentConfig",
    "Config",
    "Context",
    "DType",
    "DataError",
    "Evidence",
    "Exemplar",
    "Generate",
    "Group",
    "Labeler",
    "LabelerSlot",
    "LabelledComparison",
    "LoraSettings",
    "MissingPackageError",
    "ModelError",
    "ModelLoad",
    "ModelSource",
    "Outcome",
    "Packed",
    "PlannedStep",
    "Plugin",
    "PluginError",
    "PolicyConfig",
    "Preference",
    "Prompt",
    "PromptStrategy",
    "Question",
    "Registry",
    "Reply",
    "Request",
    "Reward",
    "RewardModel",
    "RewardSlot",
    "RlaifError",
    "Row",
    "Run",
    "Sample",
    "ScoreModel",
    "Slot",
    "Spec",
    "SpecError",
    "Split",
    "Splits",
    "Stage",
    "Step",
    "Store",
    "StrategySlot",
    "Task",
    "TaskSlot",
    "TrainingError",
    "Vote",
    "Words",
    "accumulate",
    "add_lora",
    "average_ballots",
    "compute_dtype",
    "copy_rate",
    "count_common",
    "cut_source",
    "cut_text",
    "default_component",
    "derive_seed",
    "draw_batch",
    "encode_prompt",
    "encode_response",
    "find_model",
    "first_questions",
    "flatten",
    "group_samples",
    "hookimpl",
    "kl_estimates",
    "load_model",
    "load_spec",
    "load_tokenizer",
    "my_share",
    "pack_groups",
    "plan_spec",
    "read_groups",
    "read_metrics",
    "read_pair",
    "read_prefix",
    "read_rows",
    "read_splits",
    "response_logprobs",
    "run_coroutines",
    "run_spec",
    "sample_responses",
    "save_model",
    "selective_logprobs",
    "share_prefixes",
    "side_by_side",
    "soft_label_loss",
    "split_by_tokens",
    "suggest",
    "train_steps",
    "write_rows",
]
