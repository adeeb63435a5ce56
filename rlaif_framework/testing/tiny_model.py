"""Make a tiny language model with random weights, in less than a second and the same on every call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL = ("<unk>", "<s>", "</s>")
"""Special tokens of the tokenizer: unknown, start, and end of text, which also pads."""


def save_tiny_model(folder: Path, seed: int = 0) -> Path:
    """Save a Llama of 2 layers and a width of 32 in the format of transformers, with a tokenizer of single characters.

    Tokens are the printable characters of ASCII and the newline, so that lengths and probabilities can be worked out by
    hand. All other characters are unknown.

    Args:
        folder: Folder to write to. It is created.
        seed: Seed of the random weights; the stream of other random numbers is left as it is.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,  # annotator prompts are long in bytes
        tie_word_embeddings=True,
        initializer_range=0.2,  # with the usual 0.02, all tokens have about the same probability
        bos_token_id=SPECIAL.index("<s>"),
        eos_token_id=SPECIAL.index("</s>"),
        pad_token_id=SPECIAL.index("</s>"),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _make_tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    unknown, start, end = SPECIAL
    texts = [*SPECIAL, "\n", *map(chr, range(ord(" "), ord("~") + 1))]
    tokenizer = Tokenizer(models.WordLevel({text: number for number, text in enumerate(texts)}, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=unknown, bos_token=start, eos_token=end, pad_token=end
    )
