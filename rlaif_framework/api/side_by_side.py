"""Ask several policies of a run the same prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rlaif_framework.api.finished import SFT, FinishedRun
from rlaif_framework.api.inputs import read_prompts
from rlaif_framework.api.policies import LoadedPolicy, load_run_policy
from rlaif_framework.api.rewards import LoadedReward, load_run_reward
from rlaif_framework.contracts.protocols import PromptFormat, Task
from rlaif_framework.data.faults import RowFault
from rlaif_framework.errors import DataError, RlaifError
from rlaif_framework.records.preferences import Prompt


@dataclass(frozen=True, slots=True)
class TriedResponse:
    """The response of one policy."""

    policy: str
    """Name of the arm, or `sft`."""
    text: str
    tokens: int
    """Number of its tokens, the EOS token included."""
    finished: bool
    """True if it ends with an EOS token, False if the length limit was reached."""
    rewards: dict[str, float]
    """Its score by the reward of each arm that could score it."""


@dataclass
class SideBySide:
    """Policies of a run in memory, with the rewards of their arms."""

    policies: dict[str, LoadedPolicy]
    rewards: dict[str, LoadedReward]
    task: Task
    """The task of the run."""
    unscored: dict[str, str] = field(default_factory=dict)
    """Why a reward could not score, by its arm: some need a reference response, for example."""

    @classmethod
    def load(cls, run: FinishedRun, names: Sequence[str] = ()) -> SideBySide:
        """Load policies of a run.

        Args:
            run: The run.
            names: Names of arms, and `sft` for the baseline [default: the baseline and all arms with a policy].

        Raises:
            RlaifError: There is no such arm, it has no policy, or the run has not finished it.
        """
        trained = [name for name, arm in run.spec.arms.items() if arm.algorithm is not None]
        chosen = [run.choose_arm(name, baseline=True) for name in names] or [SFT, *trained]
        for name in chosen:
            if name != SFT and name not in trained:
                raise DataError(f"arm '{name}' of {run.folder} has no policy; name other arms: {', '.join(trained)}")
        policies = {name: load_run_policy(run, name) for name in dict.fromkeys(chosen)}
        # With the baseline alone, it is scored by all rewards.
        arms = [name for name in policies if name != SFT] or list(run.spec.arms)
        scored = [name for name in arms if run.spec.arms[name].reward is not None and run.has(f"{name}/reward")]
        return cls(policies, {name: load_run_reward(run, name) for name in scored}, run.create_context().task)

    def ask(
        self, text: str, *, raw: bool = False, samples: int = 1, temperature: float = 0.0, seed: int | None = None
    ) -> list[TriedResponse]:
        """Ask all policies, one after the other.

        Args:
            text: What the task makes a prompt of, such as a post.
            raw: Send the text as it is.
            samples: Number of responses of each policy.
            temperature: Sampling temperature; 0 is greedy decoding.
            seed: Seed for sampling [default: that of the run].

        Raises:
            RlaifError: The text makes no prompt, or does not fit into the model.
        """
        given = self._make_prompt(text, raw)
        sampled = [
            (name, sample)
            for name, policy in self.policies.items()
            for sample in policy.sample([given] * samples, temperature=temperature, seed=seed)
        ]
        scores = self._score(given, [sample.text for _, sample in sampled])
        return [
            TriedResponse(
                policy=name,
                text=sample.text,
                tokens=len(sample.ids),
                finished=sample.finished,
                rewards={arm: values[index] for arm, values in scores.items()},
            )
            for index, (name, sample) in enumerate(sampled)
        ]

    def _make_prompt(self, text: str, raw: bool) -> Prompt:
        if raw or not isinstance(self.task, PromptFormat):
            (prompt,) = read_prompts(text)
            return prompt
        try:
            return self.task.format_prompt(text)
        except (RowFault, DataError) as error:
            raise DataError(f"{error}; with raw=True (--raw), the text is sent as it is") from error

    def _score(self, prompt: Prompt, responses: Sequence[str]) -> dict[str, list[float]]:
        """Score responses with each reward that can."""
        found = {}
        for arm, reward in self.rewards.items():
            try:
                found[arm] = reward.score(prompt, responses)
            except RlaifError as error:
                self.unscored[arm] = str(error)
        return found
