"""The demo's corpus: the documentation strings of Python's own standard library.

It lies on every machine that can run the demo, is real technical prose of one domain that a small general model knows
only in part, and its licence (PSF) allows the use.
"""

from __future__ import annotations

import ast
import sysconfig
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase


_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo"}
_SHORTEST = 400  # characters; modules with less hold only phrases


def standard_library_docs() -> list[str]:
    """One document a module: all of its documentation strings, in the order of the source.

    Returns:
        `list[str]`: Documents, sorted by the module's path.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    documents = []
    for path in sorted(root.rglob("*.py")):
        if _LEFT_OUT & set(path.relative_to(root).parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError, ValueError):
            continue  # a distribution may ship templates and files in old encodings
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        strings = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
        document = "\n\n".join(string for string in strings if string)
        if len(document) >= _SHORTEST:
            documents.append(document)
    return documents


def token_blocks(
    documents: list[str], tokenizer: PreTrainedTokenizerBase, length: int, count: int, seed: int
) -> list[list[int]]:
    """A seeded sample of blocks of equal length, none of which crosses the end of a document.

    Args:
        documents (`list[str]`): The documents.
        tokenizer (`PreTrainedTokenizerBase`): The model's tokenizer.
        length (`int`): Tokens a block.
        count (`int`): Most blocks to take.
        seed (`int`): Seed of the sample.

    Returns:
        `list[list[int]]`: Token ids.
    """
    blocks = []
    for document in documents:
        ids = tokenizer(document, verbose=False)["input_ids"]
        blocks += [ids[start : start + length] for start in range(0, len(ids) - length + 1, length)]
    order = np.random.default_rng(seed).permutation(len(blocks))[:count]
    return [blocks[index] for index in order]
