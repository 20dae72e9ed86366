"""Tokenizers made in memory."""

from __future__ import annotations

import string

import tokenizers
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from support.models import TRAINED, VOCABULARY


SENTENCES = [
    "The capital city of France is Paris.",
    "Rome is the capital city of Italy, and Berlin is the capital of Germany.",
    "One, two, three, four, five, six, seven, eight.",
    "A cat is an animal, and a rose is a flower; what is the thing called?",
    "def add(a, b):\n    return a + b\n",
    "中国的首都是北京。",
]
CHARACTERS = ["<pad>", "<unk>", "<eos>", *sorted(string.ascii_letters + string.digits + " .,'?!:\n-")]
assert len(CHARACTERS) <= TRAINED["vocab_size"]


def byte_level(template: str | None = None) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of `VOCABULARY` tokens, with special tokens around each text as a template puts them."""
    tokenizer = Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<pad>", "<s>", "</s>", "<|answer|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    if template is not None:
        ids = [(token, tokenizer.token_to_id(token)) for token in specials]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<|answer|>"],
    )


def by_character() -> PreTrainedTokenizerFast:
    """One token a character."""
    vocabulary = {character: index for index, character in enumerate(CHARACTERS)}
    backend = Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>", model_max_length=128
    )
