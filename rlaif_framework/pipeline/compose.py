"""Turn a spec into its steps: what each does, what it depends on, and the key its artefact is known by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

from rlaif_framework.assembly.context import Context
from rlaif_framework.assembly.identity import (
    VERSIONS_THAT_MATTER,
    describe_component,
    describe_task,
    hash_rows,
    installed_version,
)
from rlaif_framework.assembly.preflight import check_labeler
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.errors import DataError, SpecError
from rlaif_framework.pipeline.steps import Step
from rlaif_framework.plugins.component import ComponentConfig, ModelLoad
from rlaif_framework.plugins.configs import LabelerConfig, RewardConfig
from rlaif_framework.plugins.discovery import DISTRIBUTION, framework_version
from rlaif_framework.records.preferences import Comparison, Prompt
from rlaif_framework.seeds import derive_seed
from rlaif_framework.spec.model import Arm, PairsConfig, Spec


def compose(spec: Spec, context: Context) -> list[Step]:
    """List the steps of a run, each after those it depends on; arms that share a step share its key."""
    return _Composer(spec, context).compose()


class _Composer:
    def __init__(self, spec: Spec, context: Context) -> None:
        self.context = context
        self.spec = spec
        self.policy = self.spec.policy.model
        self.train = list(context.task.prompts("train"))
        # Everything a step's result depends on that is the same for all steps.
        self.common = {
            "seed": self.spec.seed,
            "policy": {
                **self.spec.policy.model_dump(mode="json"),
                "model": context.policy_source.identity,
            },
            "versions": {name: installed_version(name) for name in VERSIONS_THAT_MATTER}
            | {DISTRIBUTION: framework_version()},
        }

    def compose(self) -> list[Step]:
        sft = self._step_sft()
        steps = [sft]
        arms = {}
        for name, arm in self.spec.arms.items():
            arms[name] = self._compose_arm(name, arm, sft)
            steps += arms[name].values()
        if self.spec.evaluate is not None:
            steps += self._compose_evaluation(sft, arms)
        return steps

    def _step(
        self, stage: str, name: str, config: Mapping[str, Any], work: Callable[[Stage], object], **rest: Any
    ) -> Step:
        return Step(stage, name, {**self.common, **config}, work, **rest)

    def _describe(self, config: ComponentConfig) -> dict[str, Any]:
        return describe_component(config, self.context)

    def _step_sft(self) -> Step:
        from rlaif_framework.pipeline.stages.sft import train_baseline

        sft = self.spec.sft
        if sft is not None and not any(p.reference for p in self.train):
            raise DataError(
                "sft: the task's training prompts have no reference responses; set 'sft: null' to start without"
            )
        return self._step(
            "sft",
            "sft",
            {
                "sft": sft and sft.model_dump(mode="json"),
                "prompts": hash_rows(self.train) if sft else None,
                "task": describe_component(self.spec.task, self.context)["from"],
            },
            partial(train_baseline, context=self.context, config=sft, prompts=self.train),
            loads=[
                ModelLoad(self.policy, "policy", trained=True, groups=sft.batch_size, optimizer=sft.optimizer)
                if sft is not None
                else ModelLoad(self.policy, "policy", groups=1)
            ],
            distributed=True,
        )

    def _compose_arm(self, name: str, arm: Arm, sft: Step) -> dict[str, Step]:
        """The last round's steps by stage, and those of earlier rounds before them."""
        steps: dict[str, Step] = {}
        policy = sft
        for number in range(1, arm.rounds + 1):
            last = number == arm.rounds
            one = self._compose_round(name if last else f"{name}/round-{number}", arm, sft, policy)
            steps |= one if last else {f"{stage} {number}": step for stage, step in one.items()}
            policy = one["improve"]
        return steps

    def _task_pairs(self, place: str, pairs: PairsConfig) -> list[Comparison]:
        """The task's own comparisons that an arm labels."""
        from rlaif_framework.seeds import sample_subset

        if pairs.source == "policy":
            return []
        own = self.context.task.comparisons("train")
        if not own:
            raise SpecError(
                f"{place}.feedback.pairs: the task has no comparisons for training; set 'source: policy' to sample "
                "pairs from the policy, or give the task comparisons"
            )
        return sample_subset(own, pairs.limit, derive_seed(self.spec.seed, "sample", "task pairs"))

    def _compose_round(self, name: str, arm: Arm, sft: Step, policy: Step) -> dict[str, Step]:
        from rlaif_framework.pipeline.stages.gate import measure_agreement
        from rlaif_framework.pipeline.stages.improve import fit_reward, improve_policy
        from rlaif_framework.pipeline.stages.label import label_comparisons
        from rlaif_framework.pipeline.stages.sample import COMPARISONS, gather_pairs
        from rlaif_framework.records.rows import load_comparisons

        place = f"arms.{name.partition('/')[0]}"
        steps: dict[str, Step] = {}
        labels: dict[str, Step] = {}
        if arm.feedback is not None:
            pairs, labeler = arm.feedback.pairs, arm.feedback.labeler
            own = self._task_pairs(place, pairs)
            sampled = _as_comparisons(self.train) if pairs.source != "task" else []
            check_labeler(f"{place}.feedback.labeler", labeler, [*own, *sampled])
            steps["sample"] = self._step(
                "sample",
                f"{name}/pairs",
                {
                    "pairs": pairs.model_dump(mode="json"),
                    "comparisons": hash_rows(own),
                    "prompts": hash_rows(self.train),
                    "task": describe_component(self.spec.task, self.context),
                },
                partial(gather_pairs, context=self.context, config=pairs, comparisons=own, prompts=self.train),
                inputs={"policy": policy},
                loads=[ModelLoad(self.policy, "policy")] if pairs.source != "task" else [],
            )

            context = self.context
            validation = list(self.context.task.comparisons("validation"))

            def label(stage: Stage) -> None:
                comparisons = load_comparisons(stage.inputs["sample"] / COMPARISONS)
                preferences = label_comparisons(stage, context, labeler, comparisons)
                measure_agreement(stage, context, labeler, comparisons, preferences, validation)

            steps["label"] = self._step(
                "label",
                f"{name}/labels",
                {"labeler": self._describe(labeler), "task": self._task, "validation": hash_rows(validation)},
                label,
                inputs={"sample": steps["sample"]},
                loads=labeler.loads(self.policy),
            )
            labels = dict(steps)
        for slot, part in (("reward", arm.reward), ("algorithm", arm.algorithm)):
            if part is not None:
                check_labeler(f"{place}.{slot}", part, _as_comparisons(self.train))
        if arm.reward is not None:
            steps["reward"] = self._step(
                "reward",
                f"{name}/reward",
                {"reward": self._describe(arm.reward), "task": self._task},
                partial(fit_reward, context=self.context, config=arm.reward, feedback=arm.feedback),
                inputs={"sft": sft, **(labels if arm.reward.needs_preferences else {})},
                loads=arm.reward.loads(self.policy),
                distributed=True,
            )
        steps["improve"] = self._step(
            "improve",
            f"{name}/policy",
            {
                "algorithm": self._describe(arm.algorithm),
                "reward": arm.reward and self._describe(arm.reward),
                "task": self._task,
                "prompts": hash_rows(self.train),
                "validation": hash_rows(self.context.task.prompts("validation")),  # a watch chooses by them
            },
            partial(
                improve_policy,
                context=self.context,
                config=arm.algorithm,
                reward=arm.reward,
                feedback=arm.feedback,
                prompts=self.train,
            ),
            inputs={
                "initial": policy,
                **({"reward": steps["reward"]} if arm.reward is not None else {}),
                **(labels if arm.algorithm.needs_preferences else {}),
            },
            loads=[*arm.algorithm.loads(self.policy), *_read_only(arm.reward, self.policy)],
            distributed=True,
        )
        return steps

    @cached_property
    def _task(self) -> dict[str, Any]:
        return describe_task(self.context)

    def _compose_evaluation(self, sft: Step, arms: Mapping[str, Mapping[str, Step]]) -> list[Step]:
        from rlaif_framework.pipeline.stages.evaluate import (
            REFERENCE,
            evaluate_run,
            judge_matchup,
            sample_test,
            score_comparisons,
            score_policy,
        )
        from rlaif_framework.seeds import sample_subset

        config = self.spec.evaluate
        assert config is not None
        prompts = sample_subset(
            self.context.task.prompts("test"), config.prompts, derive_seed(self.spec.seed, "test prompts")
        )
        if not prompts:
            raise SpecError(
                "evaluate: the task has no test prompts; set 'evaluate: null' or give the task a test split"
            )
        comparisons = sample_subset(
            self.context.task.comparisons("validation"), config.comparisons, derive_seed(self.spec.seed, "validation")
        )
        matchups = self.spec.matchups()
        if any(REFERENCE in pair for pair in matchups) and not all(p.reference for p in prompts):
            raise SpecError("evaluate.matchups: not every test prompt has a reference to be compared with")
        _check_ids(prompts)
        if matchups:
            check_labeler("evaluate.judge", config.judge, _as_comparisons(prompts))
        held_out = {"comparisons": hash_rows(comparisons), "prompts": hash_rows(prompts), "task": self._task}
        inputs: dict[str, Step] = {"sft": sft}

        labelers: dict[str, LabelerConfig] = {"judge": config.judge}
        of_arm: dict[str, str | None] = {}
        for arm, settings in self.spec.arms.items():
            of_arm[arm] = None
            if settings.feedback is not None:
                of_arm[arm] = next((n for n, c in labelers.items() if c == settings.feedback.labeler), arm)
                labelers[of_arm[arm] or arm] = settings.feedback.labeler
        labelers |= {name: c for name, c in config.labelers.items() if c not in labelers.values()}
        for name, labeler in labelers.items():
            check_labeler(f"evaluate: {name}: labeler", labeler, comparisons)
            inputs[f"labels/{name}"] = self._step(
                "label",
                f"evaluation/labels/{name}",
                {"labeler": self._describe(labeler), **held_out},
                partial(_label, context=self.context, config=labeler, comparisons=comparisons),
                loads=labeler.loads(self.policy),
            )
        policies = {"sft": sft} | {arm: steps["improve"] for arm, steps in arms.items()}
        respond = {"temperature": config.temperature, "prompts": hash_rows(prompts), "task": self._task}
        for name, policy in policies.items():
            chosen = self.spec.arms.get(name)
            own = chosen if chosen is not None and chosen.algorithm.responds else None
            inputs[f"responses/{name}"] = self._step(
                "respond",
                f"evaluation/responses/{name}",
                respond | ({"algorithm": self._describe(own.algorithm)} if own else {}),
                partial(sample_test, context=self.context, config=config, prompts=prompts, arm=own),
                inputs={"policy": policy} | ({"reward": arms[name]["reward"]} if own and own.reward else {}),
                loads=[ModelLoad(self.policy, "policy"), *_read_only(own.reward if own else None, self.policy)],
            )
        for arm, steps in arms.items():
            inputs[f"improve/{arm}"] = steps["improve"]
            reward = self.spec.arms[arm].reward
            if reward is None:
                continue
            inputs[f"reward/{arm}"] = steps["reward"]
            described = self._describe(reward)
            # Arms with one reward share the first of the two.
            inputs[f"margins/{arm}"] = self._step(
                "score",
                f"evaluation/margins/{arm}",
                {"reward": described, **held_out},
                partial(
                    score_comparisons, context=self.context, reward=reward, comparisons=comparisons, prompts=prompts
                ),
                inputs={"reward": steps["reward"], "sft": inputs["responses/sft"]},
                loads=_read_only(reward, self.policy),
            )
            inputs[f"scores/{arm}"] = self._step(
                "score",
                f"evaluation/scores/{arm}",
                {"reward": described, "prompts": held_out["prompts"], "task": self._task},
                partial(score_policy, context=self.context, reward=reward, prompts=prompts),
                inputs={"reward": steps["reward"], "policy": inputs[f"responses/{arm}"]},
                loads=_read_only(reward, self.policy),
            )
        for first, second in matchups:
            inputs[f"judge/{first}/{second}"] = self._step(
                "judge",
                f"evaluation/wins/{first}-vs-{second}",
                {"judge": self._describe(config.judge), "pair": [first, second], **held_out},
                partial(
                    judge_matchup, context=self.context, judge=config.judge, first=first, second=second, prompts=prompts
                ),
                inputs={n: inputs[f"responses/{n}"] for n in dict.fromkeys((first, second)) if n != REFERENCE},
                loads=config.judge.loads(self.policy),
            )
        evaluate = self._step(
            "evaluate",
            "evaluation/summary",
            {"evaluate": config.model_dump(mode="json"), "labelers": of_arm, **held_out},
            partial(
                evaluate_run,
                context=self.context,
                config=config,
                arms=of_arm,
                labelers=labelers,
                matchups=matchups,
                comparisons=comparisons,
                prompts=prompts,
            ),
            inputs=inputs,
        )
        ours = ("labels", "responses", "margins", "scores", "judge")
        return [*(step for name, step in inputs.items() if name.partition("/")[0] in ours), evaluate]


def _as_comparisons(prompts: Sequence[Prompt]) -> list[Comparison]:
    """Comparisons as they will be of sampled responses."""
    return [Comparison(prompt.id, prompt, ("", "")) for prompt in prompts]


def _check_ids(prompts: Sequence[Prompt]) -> None:
    """Refuse test prompts of one id: the judge's answers are told apart by it."""
    seen: dict[str, Prompt] = {}
    for prompt in prompts:
        if seen.setdefault(prompt.id, prompt) is not prompt:
            raise DataError(f"evaluate: two test prompts have the id '{prompt.id}'; each needs its own")


def _label(stage: Stage, context: Context, config: LabelerConfig, comparisons: Sequence[Comparison]) -> None:
    from rlaif_framework.pipeline.stages.label import label_comparisons

    label_comparisons(stage, context, config, comparisons)


def _read_only(reward: RewardConfig | None, policy: str) -> list[ModelLoad]:
    """What a reward holds when it is only used; nothing if there is none."""
    loads = reward.loads(policy) if reward is not None else []
    return [ModelLoad(load.model, "reward", dtype=load.dtype) for load in loads]
