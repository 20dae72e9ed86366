"""The demo's corpus: the documentation strings of Python's own standard library.

It lies on every machine that can run the demo, is real technical prose of one domain that a small general model knows
only in part, and its licence (PSF) allows the use.
"""

from __future__ import annotations

import ast
import json
import sysconfig
from pathlib import Path

from ..files import write_atomically


_SHORTEST = 400  # characters; modules with less hold only phrases
_HELD_OUT_EVERY = 8  # every eighth module of the library is never trained on


def standard_library_docs() -> list[str]:
    """One document a module: all of its documentation strings, in the order of the source.

    Returns:
        `list[str]`: Documents, sorted by the module's path.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    documents = []
    for path in sorted(root.glob("*.py")):  # packages would add many more than the demo reads
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


def write_corpus(documents: list[str], folder: Path) -> tuple[Path, Path]:
    """Writes the documents as JSON lines; every eighth is held out.

    Args:
        documents (`list[str]`): The documents.
        folder (`Path`): Where to write `train.jsonl` and `held_out.jsonl`.

    Returns:
        `tuple[Path, Path]`: The two files.

    Raises:
        LayerTracerError: They cannot be written.
    """
    parts = {
        folder / "train.jsonl": [text for number, text in enumerate(documents) if number % _HELD_OUT_EVERY],
        folder / "held_out.jsonl": documents[::_HELD_OUT_EVERY],
    }
    for path, texts in parts.items():
        write_atomically(path, "".join(f"{json.dumps({'text': text})}\n" for text in texts).encode())
    train, held_out = parts
    return train, held_out
