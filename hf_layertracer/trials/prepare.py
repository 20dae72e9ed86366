"""What all runs share, made once in its own process: token blocks, the diagnosis, the arms' plans."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..config import DiagnosisConfig
from ..diagnosis.diagnose import diagnose
from ..errors import LayerTracerError
from ..modeling import context_length
from ..modeling.loading import load_model
from ..planning.strategies import strategy_named
from ..probes import Probe, load_probes
from ..report import REPORT_FILE, LayerTracerReport
from .arms import ArmConfig
from .config import TrialsConfig
from .data import count_blocks, write_blocks
from .fingerprint import content_hash, files_fingerprint
from .folder import TrialFolder, read_json, write_json
from .matching import PreparedArm, prepare_arms
from .process import run_as_child


def prepare(folder: TrialFolder) -> None:
    """Cuts the training data, diagnoses the model and plans the arms; what is there already is kept.

    Args:
        folder ([`TrialFolder`]): The trial's folder, whose `trial.json` holds the config.

    Raises:
        LayerTracerError: Data, model or an arm cannot be used.
    """
    config = TrialsConfig(**read_json(folder.trial)["config"])
    model, tokenizer = load_model(config.model, revision=config.revision, dtype=config.dtype)
    length, limit = config.train.sequence_length, context_length(model)
    if limit is not None and length > limit:
        raise LayerTracerError(
            f"train.sequence_length: {length} is longer than the model's context of {limit} tokens. Lower it."
        )
    if not folder.blocks.is_file():
        write_blocks(config.train.files, tokenizer, config.train.sequence_length, folder.blocks)
    for arm in config.arms:
        if arm.files and not (blocks := folder.blocks_of(files_fingerprint(arm.files))).is_file():
            write_blocks(arm.files, tokenizer, config.train.sequence_length, blocks, f"arms: {arm.name}: files")
    if not (folder.diagnosis / REPORT_FILE).is_file():
        settings = DiagnosisConfig(**config.diagnosis)
        diagnose(model, trial_probes(config, tokenizer), tokenizer=tokenizer, config=settings).save_or_keep(
            folder.diagnosis
        )
    report = LayerTracerReport.load(folder.diagnosis)
    arms = prepare_arms(config, model, report)
    needed = config.train.steps * config.train.batch_size
    notes = []
    own = [(f"The files of {arm.name}", arm.files) for arm in config.arms if arm.files]
    for who, files in [("The training files", None), *own]:
        there = count_blocks(folder.blocks_of(files_fingerprint(files)))
        if needed > there:
            notes.append(
                f"{who} hold {there} blocks and a run takes {needed}: they are read {needed / there:.1f} times."
            )
    trained_on = {*config.train.files, *(path for arm in config.arms for path in arm.files or ())}
    # One text may have many paths, and copies.
    contents = {content_hash(Path(path)) for path in trained_on}
    new = [(path, content_hash(Path(path))) for path in config.evaluate.new]
    notes += [
        f"{path} is trained on and evaluated on: what is learned of it may be learned by heart."
        for path, content in new
        if content in contents
    ]
    contents.update(content for _, content in new)
    notes += [
        f"{path} stands under old, and is learned or measured as new too: nothing of it shows what was forgotten."
        for path in config.evaluate.old
        if content_hash(Path(path)) in contents
    ]
    notes += _changes_that_never_come(arms, config.train.steps)
    if report.model.other:
        notes.append(
            "FLOPs are those of the text decoder alone: what an encoder or a vision tower computes is left out."
        )
    if report.model.has_experts:
        notes.append("FLOPs count all experts of a layer, though a token goes to few: they are more than is computed.")
    write_json(folder.prepared, {"arms": [arm.model_dump() for arm in arms], "notes": notes, "fingerprint": None})


def _changes_that_never_come(arms: Sequence[PreparedArm], steps: int) -> Iterator[str]:
    """What to say of arms that end before they change what trains, or before they can draw layers by their gradients."""
    for prepared in arms:
        arm = ArmConfig(**prepared.arm)
        every = arm.changes_every
        if every is None:
            continue
        if every >= steps:
            yield (
                f"{arm.name} never changes what trains: a run has {steps} steps, and it changes every {every}. It is its "
                "first choice under another name. Lower change_steps."
            )
            continue
        if strategy_named(arm.strategy).change.watches != "gradients":
            continue
        draws, trained, layers = -(-steps // every), len(prepared.plan["trained_layers"]), prepared.plan["num_layers"]
        if draws * trained <= layers:
            yield (
                f"{arm.name} never uses a gradient: layers that have not trained yet come first, and its {draws} draws of "
                f"{trained} of {layers} layers reach none twice. Lower change_steps."
            )


def trial_probes(config: TrialsConfig, tokenizer: Any) -> list[Probe]:
    """The probes that the model is diagnosed with: those of the evaluation, or the package's."""
    return load_probes(config.evaluate.probes, tokenizer=tokenizer)


if __name__ == "__main__":
    folder = TrialFolder(Path(sys.argv[1]))
    run_as_child(lambda: prepare(folder), folder.preparing.failure)
