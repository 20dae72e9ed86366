"""What a result depends on, hashed: numbers of different settings, data, models or packages never mix."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from ..errors import LayerTracerError
from ..modeling.names import check_name
from ..text import one_line
from .config import TrialsConfig


_PACKAGES = ("hf_layertracer", "torch", "transformers", "accelerate", "peft", "lm_eval", "datasets", "numpy")
# How runs are trained, evaluated and kept beyond their settings. 2: training blocks begin with the token that begins a text.
# 3: runs hold the facts that they depend on, and items are named by their file's place in the list.
PROTOCOL = 3
_WEIGHTS = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "*.py", "*.bin")


def shared_facts(config: TrialsConfig) -> dict[str, Any]:
    """All that every unit of a trial depends on.

    Args:
        config ([`TrialsConfig`]): The config, pinned.

    Returns:
        `dict[str, Any]`: Facts by name, which JSON can hold.

    Raises:
        LayerTracerError: A file or the model is not there.
    """
    evaluate = config.evaluate.model_dump()
    for kind in ("new", "old", "tasks"):
        evaluate[kind] = [_content_or_name(name) for name in evaluate[kind]]
    if config.evaluate.probes is not None:
        evaluate["probes"] = _content_or_name(config.evaluate.probes)
    return {
        "model": content_hash(Path(config.model), _WEIGHTS) if Path(config.model).is_dir() else config.model,
        "revision": config.revision,
        "dtype": config.dtype,
        "train": {
            **config.train.model_dump(exclude={"save_steps"}),
            "files": [_content_or_name(name) for name in config.train.files],
        },
        "evaluate": evaluate,
        "diagnosis": config.diagnosis,
        "processes": config.processes,
        "protocol": PROTOCOL,
        "versions": package_versions(),
    }


def unit_facts(facts: Mapping[str, Any], untouched: bool) -> dict[str, Any]:
    """Those of a trial's facts that one run depends on: other arms and seeds are none of them.

    Args:
        facts (`Mapping`): What [`shared_facts`] found.
        untouched (`bool`): Whether it is the run of the untouched model, which no training changes.

    Returns:
        `dict[str, Any]`: Facts by name.
    """
    left_out = ("train", "diagnosis", "processes") if untouched else ()
    return {name: value for name, value in facts.items() if name not in left_out}


def files_fingerprint(files: Sequence[str] | None) -> str | None:
    """A hash of the content of an arm's own training files; `None` where it has none.

    Args:
        files (`Sequence[str]`, *optional*): The files.

    Returns:
        `str` or `None`: Hexadecimal.

    Raises:
        LayerTracerError: A file is not there.
    """
    return None if files is None else fingerprint([content_hash(Path(path)) for path in files])


def package_versions() -> dict[str, str]:
    """Versions of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def fingerprint(facts: Any) -> str:
    """A hash of facts that JSON can hold."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def differences(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two sets of facts, in words.

    Args:
        there (`Mapping`): The facts of the past.
        here (`Mapping`): The facts of now.
        prefix (`str`, *optional*): Begins each name.

    Returns:
        `list[str]`: Such as `"train.learning_rate: 0.0001 there, 0.0003 here"`.
    """
    found = []
    for name in {**there, **here}:
        ours, theirs = here.get(name), there.get(name)
        if ours == theirs:
            continue
        if isinstance(ours, dict) and isinstance(theirs, dict):
            found += differences(theirs, ours, f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name}: {_short(theirs)} there, {_short(ours)} here")
    return found


def pinned(config: TrialsConfig) -> TrialsConfig:
    """The config with the commit of a model on the Hub, so that all runs of a trial load the same one.

    Args:
        config ([`TrialsConfig`]): The config.

    Returns:
        [`TrialsConfig`]: The same one for a local model.

    Raises:
        LayerTracerError: There is no such model.
    """
    try:
        check_name(config.model)
    except LayerTracerError as error:
        raise LayerTracerError(f"model: {error}") from error
    if Path(config.model).is_dir():
        return config
    try:
        path = hf_hub_download(config.model, "config.json", revision=config.revision)
    except (OSError, ValueError) as error:
        raise LayerTracerError(f"model: could not load {config.model!r}: {one_line(str(error), 300)}") from error
    return config.model_copy(update={"revision": Path(path).parent.name})


def content_hash(path: Path, patterns: tuple[str, ...] = ("**/*",)) -> str:
    """A hash of a file, or of the files of a folder with their names.

    Args:
        path (`Path`): File or folder.
        patterns (`tuple[str, ...]`, *optional*): Which files of a folder.

    Returns:
        `str`: Hexadecimal.

    Raises:
        LayerTracerError: It cannot be read.
    """
    files = [path]
    if path.is_dir():
        files = sorted({file for pattern in patterns for file in path.glob(pattern) if file.is_file()})
    digest = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise LayerTracerError(f"Could not read {file}: {error.strerror or error}.") from error
        digest.update(f"{file.relative_to(path) if path.is_dir() else ''} {content}\n".encode())
    return digest.hexdigest()[:16]


def _content_or_name(name: str) -> str:
    """A folder may move: what counts is what lies there. A name of the Hub is itself."""
    return content_hash(Path(name)) if Path(name).exists() else name


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else text[:59] + "…"
