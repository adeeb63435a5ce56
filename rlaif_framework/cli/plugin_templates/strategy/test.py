from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rlaif_framework import Answer, Choose, Context, Request
from rlaif_framework.testing import StrategyConformance, annotate, run_strategy

from rlaif_acme import SecondThought, SecondThoughtConfig


class TestSecondThought(StrategyConformance):
    component = "acme/second-thought"
    config: ClassVar[Mapping[str, Any]] = {"temperature": 0.7}

    def test_the_explanation_can_change_the_label(self, context: Context) -> None:
        def reply(request: Request) -> Answer:
            explained = "It rambles." in request.question.prefill
            if isinstance(request, Choose):
                return Answer((0.2, 0.8) if explained else (0.6, 0.4))
            return Answer(text="It rambles.")

        strategy = SecondThought(SecondThoughtConfig(second_weight=0.75), context)
        ask = annotate(context, context.task.comparisons("test")[0])
        ballot, requests = run_strategy(strategy, ask, reply)
        assert ballot.probabilities is not None
        assert abs(ballot.probabilities[0] - 0.3) < 1e-9
        assert len(requests) == 3
