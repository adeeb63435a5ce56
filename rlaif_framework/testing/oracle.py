"""A problem for algorithms whose solution is known: responses that begin with one of thirteen letters are rewarded."""

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
        """Score responses by their first character that is not white space."""
        return [1.0 if text.strip()[:1] in {*LIKED} else -1.0 for text in responses]


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
    """Compute the probability that a response of two tokens begins with a liked letter, averaged over prompts.

    Trainers may put a space between the prompt and the response, so the letter may be the second character.
    """
    import torch

    from rlaif_framework.models.chat import encode_prompt
    from rlaif_framework.models.loading import load_model

    tokenizer = context.load_policy_tokenizer(folder)
    model = load_model(context.find_trained(folder), "causal", torch.float32, context.device)
    liked, spaces = ([tokenizer.vocab[text] for text in texts] for texts in (LIKED, " \n"))
    shares = []
    with torch.no_grad():
        for prompt in prompts:
            ids = encode_prompt(tokenizer, prompt)
            rows = torch.tensor([[*ids, space] for space in spaces], device=context.device)
            logits = model(rows).logits[:, -2:]  # (spaces, 2, vocabulary)
            first, second = logits[0, 0].softmax(0), logits[:, 1].softmax(1)[:, liked].sum(1)
            shares.append(float(first[liked].sum() + first[spaces] @ second))
    return sum(shares) / len(shares)
