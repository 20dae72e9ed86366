"""Documents cut into blocks of tokens, each with the bytes of text that it stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..documents import read_documents
from ..errors import LayerTracerError


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Block:
    """A piece of a document.

    Args:
        input_ids (`tuple[int, ...]`): What the model reads: a token that starts the block, then the block.
        bytes (`int`): How many bytes of UTF-8 the tokens after the first stand for.
        item (`str`): File, document and position in it.
        group (`str`): File and document: blocks of one document resemble each other.
    """

    input_ids: tuple[int, ...]
    bytes: int
    item: str
    group: str

    @property
    def tokens(self) -> int:
        """How many tokens are predicted."""
        return len(self.input_ids) - 1


def text_blocks(
    files: Iterable[str], tokenizer: PreTrainedTokenizerBase, length: int, limit: int | None = None
) -> list[Block]:
    """Cuts the documents of files into blocks of at most `length` tokens, none of which crosses a document's end.

    Every token of a document is in one block, and the blocks' bytes add up to the document's. A block never ends inside
    a character, which a byte-level tokenizer may spread over several tokens.

    Args:
        files (`Iterable[str]`): Paths that [`read_documents`] reads.
        tokenizer (`PreTrainedTokenizerBase`): The model's tokenizer.
        length (`int`): Most tokens that are predicted in a block.
        limit (`int`, *optional*): Most blocks, spread evenly over all of them.

    Returns:
        `list[Block]`: The blocks, never empty.

    Raises:
        LayerTracerError: A file cannot be read, there is no text, or the tokenizer does not say where its tokens lie.
    """
    files = list(files)
    blocks: list[Block] = []
    seen: Counter[str] = Counter()
    for path in files:
        for document in read_documents(path):
            # Numbered on over files of one name in several folders: a group is one document.
            name = Path(path).name
            blocks += document_blocks(document, tokenizer, length, f"{name}:{seen[name]}")
            seen[name] += 1
    if not blocks:
        raise LayerTracerError(f"There is no text to evaluate on in {', '.join(files)}.")
    if limit is not None and limit < len(blocks):
        blocks = [blocks[index] for index in np.arange(limit) * len(blocks) // limit]
    return blocks


def document_blocks(document: str, tokenizer: PreTrainedTokenizerBase, length: int, name: str = "") -> Iterator[Block]:
    """Cuts one document into blocks, as [`text_blocks`] does.

    Args:
        document (`str`): The text.
        tokenizer (`PreTrainedTokenizerBase`): The model's tokenizer.
        length (`int`): Most tokens that are predicted in a block.
        name (`str`, *optional*): The blocks' group, and what their items begin with.

    Yields:
        [`Block`]: The blocks, in order.

    Raises:
        LayerTracerError: The tokenizer does not say where its tokens lie, or has no token to begin with.
    """
    if not tokenizer.is_fast:
        raise LayerTracerError(
            f"{type(tokenizer).__name__} does not say where in a text its tokens lie, so bytes cannot be counted: "
            "load a fast tokenizer."
        )
    encoded = tokenizer(document, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids = encoded["input_ids"]
    begins = start_token(tokenizer)
    if not ids:
        return
    starts, ends = np.array(encoded["offset_mapping"]).T
    ends = np.maximum.accumulate(ends)
    # A normalizer may drop spaces at the end: they belong to the last token.
    ends[-1] = len(document)
    whole = np.append(True, starts[1:] >= ends[:-1])  # whether a character begins with this token
    begin = 0
    while begin < len(ids):
        end = min(begin + length, len(ids))
        while end < len(ids) and end > begin + 1 and not whole[end]:
            end -= 1
        text = document[ends[begin - 1] if begin else 0 : ends[end - 1]]
        yield Block((begins, *ids[begin:end]), len(text.encode()), f"{name}:{begin}", name)
        begin = end


def start_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that a text begins with, in training as in evaluation: without it, Gemma's loss is far higher.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): The model's tokenizer.

    Returns:
        `int`: The token's id: that which begins a text or, where there is none, that which ends it.

    Raises:
        LayerTracerError: The tokenizer has neither.
    """
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return token
    raise LayerTracerError("The tokenizer has neither a token that begins a text nor one that ends it.")
