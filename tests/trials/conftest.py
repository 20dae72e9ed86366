"""A tiny model with texts to learn, and trials that run in this process, where no process of their own is the point."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hf_layertracer import LayerTracerError, TrialsConfig, run_trials
from hf_layertracer.files import write_atomically
from hf_layertracer.trials.folder import TrialFolder, UnitFolder, write_json
from hf_layertracer.trials.prepare import prepare
from hf_layertracer.trials.unit import run_unit


WORDS = [
    *("The", "capital", "city", "of", "France", "is", "Paris", "Rome", "Italy"),
    *("Berlin", "Germany", "cat", "animal", "rose", "flower", "thing"),
]


@pytest.fixture(scope="session")
def world(tmp_path_factory, tiny_llama, tiny_tokenizer) -> Path:
    """A folder with `model`, `new.txt`, `held.txt`, `old.txt` and `probes.jsonl`."""
    folder = tmp_path_factory.mktemp("world")
    tiny_llama().save_pretrained(folder / "model")
    tiny_tokenizer.save_pretrained(folder / "model")
    draw = random.Random(0)
    for name, lines in (("new.txt", 200), ("held.txt", 30), ("old.txt", 30)):
        text = "\n".join(" ".join(draw.choices(WORDS, k=12)) + "." for _ in range(lines))
        write_atomically(folder / name, text.encode())
    probes = [f'{{"prompt": "The {word} is", "target": " {word}", "task": "echo"}}' for word in WORDS[:6]]
    write_atomically(folder / "probes.jsonl", "\n".join(probes).encode())
    return folder


@pytest.fixture(scope="session")
def make_config(world: Path) -> Callable[..., TrialsConfig]:
    """`make_config(arms=[...], train={...})`: a trial of a second; `train` and `evaluate` are completed."""

    def make(**changes: Any) -> TrialsConfig:
        train = {"files": [str(world / "new.txt")], "sequence_length": 16, "tokens": 400, "batch_size": 4}
        evaluate = {
            "new": [str(world / "held.txt")],
            "old": [str(world / "old.txt")],
            "probes": str(world / "probes.jsonl"),
            "limit": 8,
            "sequence_length": 32,
        }
        return TrialsConfig(
            **{
                "model": str(world / "model"),
                "arms": [{"strategy": "full"}, {"strategy": "freeze-deep"}],
                "diagnosis": {"repeats": 1},
                **changes,
                "train": {**train, "learning_rate": 1e-3, **changes.get("train", {})},
                "evaluate": {**evaluate, **changes.get("evaluate", {})},
            }
        )

    return make


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs that would be processes are calls; the list says which were made."""
    made: list[str] = []
    monkeypatch.setattr("hf_layertracer.trials.run.run_module", partial(_run_here, made))
    return made


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[TrialsConfig], Path]:
    """`finished(config)`: the folder of that trial, which is made once; copy it before you change anything."""
    folders: dict[str, Path] = {}

    def run(config: TrialsConfig) -> Path:
        key = config.model_dump_json()
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp("finished")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("hf_layertracer.trials.run.run_module", partial(_run_here, []))
                run_trials(config, folders[key])
        return folders[key]

    return run


def _run_here(made: list[str], module: str, folder: Path, log: Path, failure: Path, **_: Any) -> str | None:
    made.append("prepare" if module.endswith(".prepare") else folder.name)
    failure.unlink(missing_ok=True)
    try:
        if module.endswith(".prepare"):
            prepare(TrialFolder(folder))
        else:
            run_unit(UnitFolder(folder))
    except (LayerTracerError, RuntimeError) as error:
        write_json(failure, {"cause": str(error)})
        return str(error)
    return None
