"""Load a policy that a run trained, or another model, and generate responses as the evaluation of a run does."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from rlaif_framework.api.finished import FinishedRun, find_run
from rlaif_framework.api.inputs import PromptLike, read_prompts
from rlaif_framework.api.session import load_plugins, quiet_libraries
from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.protocols import Guidance, Responder
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.errors import SpecError
from rlaif_framework.pipeline.recipes import RespondRecipe
from rlaif_framework.plugins.configs import TaskConfig
from rlaif_framework.progress import Progress
from rlaif_framework.records.preferences import Prompt
from rlaif_framework.records.samples import Sample
from rlaif_framework.seeds import derive_seed
from rlaif_framework.spec.model import PolicyConfig
from rlaif_framework.training.responses import truncate_prompts

NO_TASK = TaskConfig(kind="")
"""Of a model that belongs to no run: neither its prompts nor its responses are changed."""

Answer = Callable[[Sequence[Prompt], float, int, int], Sequence[Sample]]
"""Answers prompts at a temperature, with a seed and a maximum number of new tokens."""


class LoadedPolicy:
    """A policy in memory.

    Attributes:
        path: Its model folder, which transformers loads as well, or another name of a model.
        settings: Lengths, precision and chat format.
    """

    def __init__(self, path: Path | str, context: Context, run: FinishedRun | None, answer: Answer) -> None:
        self.path = path
        self.settings: PolicyConfig = context.policy
        self._context = context
        self._run = run
        self._answer = answer

    def generate(
        self,
        prompts: PromptLike | Sequence[PromptLike],
        *,
        temperature: float = 0.0,
        max_new_tokens: int | None = None,
        seed: int | None = None,
    ) -> list[str]:
        """Generate one response to each prompt.

        The responses of a run's policy are those of its evaluation: long prompts are truncated and responses are
        cleaned as the task does it.

        Args:
            prompts: Texts, lists of messages, or prompts of a task; or one of them. A text is sent as it is, or as one
                turn of the user if the model has a chat template. Repeat a prompt to sample several responses to it.
            temperature: Sampling temperature; 0 is greedy decoding.
            max_new_tokens: Maximum length of a response in tokens [default: that of the run, or 128].
            seed: Seed for sampling [default: that of the run's evaluation, or 0].

        Returns:
            The responses, in order; a list of one for a single prompt.

        Raises:
            RlaifError: A prompt cannot be read, or does not fit into the model.
        """
        found = self.sample(prompts, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)
        return [sample.text for sample in found]

    def sample(
        self,
        prompts: PromptLike | Sequence[PromptLike],
        *,
        temperature: float = 0.0,
        max_new_tokens: int | None = None,
        seed: int | None = None,
    ) -> list[Sample]:
        """Generate one response to each prompt, as `generate` does, and return it with its tokens.

        Args:
            prompts: As for `generate`.
            temperature: As for `generate`.
            max_new_tokens: As for `generate`.
            seed: As for `generate`.

        Returns:
            The responses, in order. Their texts are those that `generate` returns.

        Raises:
            RlaifError: A prompt cannot be read, or does not fit into the model.
        """
        if temperature < 0:
            raise SpecError(f"temperature is {temperature}; it must be 0 (greedy) or above")
        if max_new_tokens is not None and max_new_tokens < 1:
            raise SpecError(f"max_new_tokens is {max_new_tokens}; it must be 1 or above")
        given = read_prompts(prompts)
        if not given:
            return []
        with quiet_libraries():
            if self._run is not None:
                given, _ = truncate_prompts(self._context, given, self._context.load_policy_tokenizer(Path(self.path)))
            run_seed = 0 if self._run is None else self._run.spec.seed
            limit = self.settings.max_new_tokens if max_new_tokens is None else max_new_tokens
            samples = self._answer(given, temperature, run_seed if seed is None else seed, limit)
            # The decoded text of a sample has no white space around it.
            if self._run is None:
                return list(samples)
            return [replace(sample, text=self._context.task.clean(sample.text)) for sample in samples]

    def __repr__(self) -> str:
        return f"<policy {self.path}>"


def load_policy(
    where: str | Path,
    arm: str | None = None,
    *,
    plugins: Iterable[str | Path] = (),
    trust_local: bool = False,
    trust_remote_code: bool = False,
) -> LoadedPolicy:
    """Load a policy that a run trained, or another model.

    Args:
        where: The folder of a run, the folder of a policy in it, or any model in the forms of `policy.model`.
        arm: Name of the arm, or `sft` for the baseline [default: the only arm]. Only for the folder of a run.
        plugins: Python files to load as plugins, and to allow a spec to use, and modules to allow.
        trust_local: Allow all Python code that the spec of the run names to run. Read it first.
        trust_remote_code: Run the Python code of the model. It can do everything that you can, so read it first.

    Raises:
        RlaifError: There is no such run, arm or model.
    """
    manager, found = load_plugins(plugins, trust_local), find_run(where, "policy")
    if found is None:
        if arm is not None:
            raise SpecError(f"{where} is not the folder of a run, so it has no arm '{arm}'")
        policy = PolicyConfig(model=str(where), trust_remote_code=trust_remote_code)
        with quiet_libraries():
            context = Context(NO_TASK, policy, 0, manager)
            return LoadedPolicy(where, context, None, _load_model(context, str(where)))
    folder, own = found
    return load_run_policy(FinishedRun.read(folder, manager, trust_remote_code), own if arm is None else arm)


def load_run_policy(run: FinishedRun, arm: str | None) -> LoadedPolicy:
    """Load the policy of an arm, or the baseline."""
    name = run.choose_arm(arm, baseline=True)
    settings, context = run.arm(name), run.create_context()
    path = run.find(name if settings is None else f"{name}/policy")
    with quiet_libraries():
        if settings is not None and settings.algorithm is not None and settings.algorithm.responds:
            return LoadedPolicy(path, context, run, _load_responder(run, name, path))
        return LoadedPolicy(path, context, run, _load_model(context, path))


def _load_model(context: Context, where: str | Path) -> Answer:
    """Load a model, and answer with it."""
    from rlaif_framework.models.loading import load_model
    from rlaif_framework.models.sampling import sample_responses

    source = context.find_trained(where) if isinstance(where, Path) else context.policy_source
    tokenizer = context.load_policy_tokenizer(source)
    model = load_model(source, "causal", context.dtype, context.device)

    def answer(prompts: Sequence[Prompt], temperature: float, seed: int, new_tokens: int) -> Sequence[Sample]:
        return sample_responses(
            model,
            tokenizer,
            prompts,
            max_new_tokens=new_tokens,
            temperature=temperature,
            seed=derive_seed(seed, RespondRecipe.stage, "responses"),
            budget=context.batch_tokens,
        )

    return answer


def _load_responder(run: FinishedRun, arm: str, policy: Path) -> Answer:
    """Answer with the algorithm of an arm, such as `best-of-n`, which answers itself."""
    settings = run.spec.arms[arm]
    algorithm = settings.algorithm
    assert algorithm is not None  # an arm without one has no policy

    guidance = Guidance()
    if settings.reward is not None:
        folder = run.find(f"{arm}/reward")
        guidance = Guidance(run.create_context().build_reward(settings.reward).load(folder), folder)

    def answer(prompts: Sequence[Prompt], temperature: float, seed: int, new_tokens: int) -> Sequence[Sample]:
        policy_settings = run.spec.policy.model_copy(update={"max_new_tokens": new_tokens})
        context = Context(run.spec.task, policy_settings, seed, run.manager)
        responder = cast(Responder, context.build_algorithm(algorithm))
        with tempfile.TemporaryDirectory() as scratch:
            stage = Stage(
                RespondRecipe.stage, Path(scratch), Path(scratch), seed, context.accelerator, progress=Progress()
            )
            return responder.respond(policy, guidance, prompts, stage, temperature)

    return answer
