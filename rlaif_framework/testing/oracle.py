"""A problem for algorithms whose solution is known: responses of one character, half of which are rewarded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif_framework.records.preferences import Comparison, LabelledComparison, Prompt

if TYPE_CHECKING:
    from rlaif_framework.assembly.context import Context

LIKED, OTHERS = "acegikmoqsuwy", "bdfhjlnprtvxz"


class OracleReward:
    """1 for a response that begins with a letter of `LIKED`, -1 for any other."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
        """Score responses by their first character."""
        return [1.0 if text[:1] in LIKED and text else -1.0 for text in responses]


def label_letters(prompts: Sequence[Prompt]) -> list[LabelledComparison]:
    """Compare each liked letter with another letter; every second comparison has the liked one in the second place."""
    found = []
    for number, (good, bad) in enumerate(zip(LIKED, OTHERS, strict=True)):
        for prompt in prompts:
            first = number % 2 == 0
            pair = (good, bad) if first else (bad, good)
            comparison = Comparison(f"{prompt.id}-{number}", prompt, pair, float(first), "human")
            found.append(LabelledComparison(comparison, (0.95, 0.05) if first else (0.05, 0.95)))
    return found


def measure_liking(context: Context, folder: Path, prompts: Sequence[Prompt]) -> float:
    """Compute the probability that a saved policy responds with a liked letter, averaged over prompts."""
    import torch

    from rlaif_framework.models.chat import encode_prompt
    from rlaif_framework.models.loading import load_model

    tokenizer = context.load_policy_tokenizer(folder)
    model = load_model(context.find_trained(folder), "causal", torch.float32, context.device)
    liked = tokenizer.convert_tokens_to_ids(list(LIKED))
    shares = []
    with torch.no_grad():
        for prompt in prompts:
            ids = torch.tensor([encode_prompt(tokenizer, prompt)], device=context.device)
            shares.append(float(model(ids).logits[0, -1].softmax(0)[liked].sum()))
    return sum(shares) / len(shares)
