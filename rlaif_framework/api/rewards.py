"""Load a reward that a run trained, or another reward model, and score responses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rlaif_framework.api.finished import SFT, FinishedRun, find_run
from rlaif_framework.api.inputs import (
    CompletionLike,
    PromptLike,
    add_columns,
    check_lengths,
    read_completions,
    read_prompts,
)
from rlaif_framework.api.policies import NO_TASK
from rlaif_framework.api.session import load_plugins, quiet_libraries
from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.protocols import Reward
from rlaif_framework.contracts.validation import score_responses
from rlaif_framework.errors import SpecError
from rlaif_framework.plugins.configs import RewardConfig
from rlaif_framework.plugins.slots import narrow
from rlaif_framework.spec.model import PolicyConfig
from rlaif_framework.training.responses import truncate_prompts


class LoadedReward:
    """A reward in memory.

    Attributes:
        path: Its folder, or another name of a reward model.
        config: Its settings.
    """

    def __init__(
        self, path: Path | str, config: RewardConfig, reward: Reward, context: Context, run: FinishedRun | None
    ) -> None:
        self.path = path
        self.config = config
        self._reward = reward
        self._context = context
        self._run = run

    def score(
        self,
        prompts: PromptLike | Sequence[PromptLike],
        completions: Sequence[CompletionLike],
        references: Sequence[str | None] | None = None,
        **columns: object,
    ) -> list[float]:
        """Score responses, each to its prompt; higher is better.

        The scores of a run's reward are those of its evaluation: long prompts are truncated as in training.

        Args:
            prompts: Texts, lists of messages, or prompts of a task; or one of them, for all responses.
            completions: The responses, as texts or as lists of messages.
            references: A reference response to each prompt, for rewards that compare with it.
            columns: A list with one value for each prompt, by name: what functions of the spec's `task.columns` take.
                Others are ignored, so that TRL's trainers take this method as one of their `reward_funcs`.

        Raises:
            RlaifError: Prompts and responses do not match, or cannot be scored.
        """
        texts, given = read_completions(completions), read_prompts(prompts, references)
        known = self._context.task_config.prompt_columns
        given = add_columns(given, {name: columns[name] for name in known if name in columns})
        if len(given) == 1:
            given *= len(texts)
        check_lengths(prompts=given, completions=texts)
        if not texts:
            return []
        with quiet_libraries():
            if self._run is not None:
                # By the policy's tokenizer, as in training: rewards may have another one.
                trained = self._run.has(SFT)  # not by an arm that ends at a reward which needs no baseline
                where = self._run.find(SFT) if trained else self._context.policy_source
                tokenizer = self._context.load_policy_tokenizer(where)
                given, _ = truncate_prompts(self._context, given, tokenizer)
            return score_responses(self._reward, given, texts)

    def __repr__(self) -> str:
        return f"<reward {self.config.title}: {self.path}>"


def load_reward(
    where: str | Path,
    arm: str | None = None,
    *,
    plugins: Iterable[str | Path] = (),
    trust_local: bool = False,
    trust_remote_code: bool = False,
) -> LoadedReward:
    """Load a reward that a run made, or another reward model.

    Args:
        where: The folder of a run, the folder of a reward in it, or a sequence-classification model with one output, in
            the forms of `policy.model`.
        arm: Name of the arm [default: the only one]. Only for the folder of a run.
        plugins: Python files to load as plugins, and to allow a spec to use, and modules to allow.
        trust_local: Allow all Python code that the spec of the run names to run. Read it first.
        trust_remote_code: Run the Python code of the model. It can do everything that you can, so read it first.

    Raises:
        RlaifError: There is no such run, arm or model.
    """
    manager, found = load_plugins(plugins, trust_local), find_run(where, "reward")
    if found is not None:
        folder, own = found
        return load_run_reward(FinishedRun.read(folder, manager, trust_remote_code), own if arm is None else arm)
    if arm is not None:
        raise SpecError(f"{where} is not the folder of a run, so it has no arm '{arm}'")
    settings = {"model": str(where), "trust_remote_code": trust_remote_code}
    config = narrow("reward", {"kind": "pretrained", **settings}, manager)
    context = Context(NO_TASK, PolicyConfig.model_validate(settings), 0, manager)
    with quiet_libraries():
        return LoadedReward(where, config, context.build_reward(config).load(Path()), context, None)


def load_run_reward(run: FinishedRun, arm: str | None) -> LoadedReward:
    """Load the reward of an arm."""
    name = run.choose_arm(arm)
    config, context = run.spec.arms[name].reward, run.create_context()
    if config is None:
        raise SpecError(f"arm '{name}' of {run.folder} has no reward")
    path = run.find(f"{name}/reward")
    with quiet_libraries():
        return LoadedReward(path, config, context.build_reward(config).load(path), context, run)
