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
from rlaif_framework.inquiry import Inquiry, inquire
from rlaif_framework.jsonl import read_rows, write_rows
from rlaif_framework.loading import load_spec
from rlaif_framework.model_source import ModelSource, find_model
from rlaif_framework.pairs import read_pair
from rlaif_framework.plugins import Plugin, Registry
from rlaif_framework.protocols import (
    Algorithm,
    Backend,
    Guidance,
    Labeler,
    PromptStrategy,
    Responder,
    Reward,
    RewardModel,
    Task,
    TermedReward,
)
from rlaif_framework.rl.settings import LearnerConfig, OnlineConfig, PolicyGradientConfig, ValueConfig, WatchConfig
from rlaif_framework.seeds import derive_seed
from rlaif_framework.shaping import Bounds, bound, harden, soften
from rlaif_framework.spec import DType, LoraSettings, PolicyConfig, SftConfig, Spec
from rlaif_framework.splits import Row, Splits, read_splits
from rlaif_framework.text import copy_rate, cut_source, cut_text, defuse_markers
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
    from rlaif_framework.fine_tuning import fine_tune
    from rlaif_framework.generation import read_groups, read_prefix
    from rlaif_framework.losses import selective_logprobs, soft_label_loss, token_entropies
    from rlaif_framework.models import add_lora, compute_dtype, load_model, load_tokenizer, save_model
    from rlaif_framework.packing import Group, Packed, lay_out, pack_groups, split_by_tokens
    from rlaif_framework.pipeline import Step
    from rlaif_framework.policy import (
        Sample,
        encode_prompt,
        encode_response,
        group_samples,
        response_logits,
        response_logprobs,
        sample_responses,
        shorten_prompts,
    )
    from rlaif_framework.prompt_units import PairIndex, PromptUnit, gather_by_prompt, index_pairs
    from rlaif_framework.rl.estimators import (
        clipped_fraction,
        clipped_surrogate,
        discount,
        estimate_kl,
        gae,
        leave_one_out,
        normalise_groups,
        sum_responses,
    )
    from rlaif_framework.rl.learner import Learner, Rollout, Tally, describe_rollout, score_rollout
    from rlaif_framework.rl.policy_gradient import Experience, PolicyGradient
    from rlaif_framework.rl.watch import Watch
    from rlaif_framework.scoring import ScoreModel, separate_padding
    from rlaif_framework.stage import Stage, read_metrics
    from rlaif_framework.store import Store
    from rlaif_framework.training import accumulate, draw_batch, make_optimizer, my_share, train_steps

_LAZY = {
    "count_common": "branching",
    "share_prefixes": "branching",
    "PlannedStep": "engine",
    "Run": "engine",
    "plan_spec": "engine",
    "run_spec": "engine",
    "fine_tune": "fine_tuning",
    "read_groups": "generation",
    "read_prefix": "generation",
    "selective_logprobs": "losses",
    "soft_label_loss": "losses",
    "token_entropies": "losses",
    "add_lora": "models",
    "compute_dtype": "models",
    "load_model": "models",
    "load_tokenizer": "models",
    "save_model": "models",
    "Group": "packing",
    "Packed": "packing",
    "lay_out": "packing",
    "pack_groups": "packing",
    "split_by_tokens": "packing",
    "Step": "pipeline",
    "Sample": "policy",
    "encode_prompt": "policy",
    "encode_response": "policy",
    "group_samples": "policy",
    "response_logprobs": "policy",
    "response_logits": "policy",
    "sample_responses": "policy",
    "shorten_prompts": "policy",
    "PairIndex": "prompt_units",
    "PromptUnit": "prompt_units",
    "gather_by_prompt": "prompt_units",
    "index_pairs": "prompt_units",
    "clipped_fraction": "rl.estimators",
    "clipped_surrogate": "rl.estimators",
    "discount": "rl.estimators",
    "estimate_kl": "rl.estimators",
    "gae": "rl.estimators",
    "leave_one_out": "rl.estimators",
    "normalise_groups": "rl.estimators",
    "sum_responses": "rl.estimators",
    "Learner": "rl.learner",
    "Rollout": "rl.learner",
    "Tally": "rl.learner",
    "describe_rollout": "rl.learner",
    "score_rollout": "rl.learner",
    "Experience": "rl.policy_gradient",
    "PolicyGradient": "rl.policy_gradient",
    "Watch": "rl.watch",
    "ScoreModel": "scoring",
    "separate_padding": "scoring",
    "Stage": "stage",
    "read_metrics": "stage",
    "Store": "store",
    "accumulate": "training",
    "draw_batch": "training",
    "make_optimizer": "training",
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
    "Bounds",
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
    "Experience",
    "Generate",
    "Group",
    "Guidance",
    "Inquiry",
    "Labeler",
    "LabelerSlot",
    "LabelledComparison",
    "Learner",
    "LearnerConfig",
    "LoraSettings",
    "MissingPackageError",
    "ModelError",
    "ModelLoad",
    "ModelSource",
    "OnlineConfig",
    "Outcome",
    "Packed",
    "PairIndex",
    "PlannedStep",
    "Plugin",
    "PluginError",
    "PolicyConfig",
    "PolicyGradient",
    "PolicyGradientConfig",
    "Preference",
    "Prompt",
    "PromptStrategy",
    "PromptUnit",
    "Question",
    "Registry",
    "Reply",
    "Request",
    "Responder",
    "Reward",
    "RewardModel",
    "RewardSlot",
    "RlaifError",
    "Rollout",
    "Row",
    "Run",
    "Sample",
    "ScoreModel",
    "SftConfig",
    "Slot",
    "Spec",
    "SpecError",
    "Split",
    "Splits",
    "Stage",
    "Step",
    "Store",
    "StrategySlot",
    "Tally",
    "Task",
    "TaskSlot",
    "TermedReward",
    "TrainingError",
    "ValueConfig",
    "Vote",
    "Watch",
    "WatchConfig",
    "Words",
    "accumulate",
    "add_lora",
    "average_ballots",
    "bound",
    "clipped_fraction",
    "clipped_surrogate",
    "compute_dtype",
    "copy_rate",
    "count_common",
    "cut_source",
    "cut_text",
    "default_component",
    "defuse_markers",
    "derive_seed",
    "describe_rollout",
    "discount",
    "draw_batch",
    "encode_prompt",
    "encode_response",
    "estimate_kl",
    "find_model",
    "fine_tune",
    "first_questions",
    "flatten",
    "gae",
    "gather_by_prompt",
    "group_samples",
    "harden",
    "hookimpl",
    "index_pairs",
    "inquire",
    "lay_out",
    "leave_one_out",
    "load_model",
    "load_spec",
    "load_tokenizer",
    "make_optimizer",
    "my_share",
    "normalise_groups",
    "pack_groups",
    "plan_spec",
    "read_groups",
    "read_metrics",
    "read_pair",
    "read_prefix",
    "read_rows",
    "read_splits",
    "response_logits",
    "response_logprobs",
    "run_coroutines",
    "run_spec",
    "sample_responses",
    "save_model",
    "score_rollout",
    "selective_logprobs",
    "separate_padding",
    "share_prefixes",
    "shorten_prompts",
    "side_by_side",
    "soft_label_loss",
    "soften",
    "split_by_tokens",
    "suggest",
    "sum_responses",
    "token_entropies",
    "train_steps",
    "write_rows",
]
