"""A whole trial: what runs, what is kept, what is refused, what is written down."""

from __future__ import annotations

import json
import math
import shutil
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerControl, TrainerState

from hf_layertracer import LayerTracerError, LayerTracerReport, run_trials
from hf_layertracer.trials import TrialsResult, unit
from hf_layertracer.trials.folder import TrialFolder, read_json, write_json
from hf_layertracer.trials.prepare import prepare
from hf_layertracer.trials.status import trial_status
from hf_layertracer.trials.summary import Summary


ARMS = [
    {"strategy": "full"},
    {"strategy": "freeze-deep"},
    {"strategy": "random"},
    {"strategy": "lora", "learning_rate": 1e-2},
]
EITHER = pytest.mark.parametrize(
    "arm",
    [
        {"strategy": "freeze-deep"},
        {"strategy": "lora"},
        {"strategy": "lisa", "change_steps": 2, "thaw_warmup_steps": 1},
    ],
    ids=["layers", "adapters", "changing"],
)


def test_a_trial_leaves_a_row_for_each_run_and_one_for_the_untouched_model(make_config, in_this_process, tmp_path):
    result = run_trials(make_config(arms=ARMS, seeds=[0, 1], match="trainable_parameters"), tmp_path)
    assert in_this_process[:2] == ["prepare", "base"]
    assert len(in_this_process) == 2 + 8

    written = json.loads((tmp_path / "results.json").read_text())
    assert [(row["arm"], row["seed"]) for row in written["rows"]] == [
        ("base", None),
        *((arm["strategy"], seed) for seed in (0, 1) for arm in ARMS),
    ]
    for row in written["rows"]:
        assert {"new/bits_per_byte", "old/perplexity", "probes/accuracy"} <= set(row["metrics"])
        assert all(math.isfinite(value) for value in row["metrics"].values())
    trained = written["rows"][1:]
    assert {row["cost"]["tokens"] for row in trained} == {6 * 4 * 16}
    assert all(row["cost"]["tokens_per_second"] > 0 and row["cost"]["peak_memory_bytes"] > 0 for row in trained)
    # Adam keeps two numbers for each that trains, and a step for each tensor.
    for row in trained:
        moments = 8 * row["cost"]["trainable_parameters"]
        assert moments <= row["cost"]["optimizer_bytes"] < 1.02 * moments

    # Learning is possible, and differs between arms and seeds.
    losses = {(row["arm"], row["seed"]): row["metrics"]["new/bits_per_byte"] for row in written["rows"]}
    assert losses["full", 0] < losses["base", None]
    assert len(set(losses.values())) == len(losses)

    parameters = {entry["arm"]["name"]: entry for entry in written["arms"]}
    assert parameters["full"]["off_by"] is None
    assert all(abs(parameters[name]["off_by"]) < 0.1 for name in ("freeze-deep", "random", "lora"))
    drawn = [run["plan"]["trained_layers"] for run in result.runs_of("random")]
    assert len(drawn) == 2
    for row in trained:
        assert row["cost"]["trainable_parameters"] == parameters[row["arm"]]["trainable_parameters"]

    text = (tmp_path / "results.md").read_text()
    for word in ("untouched", "chance", "tokens/s", "Against full", "± seeds", "adapters", "all from one document"):
        assert word in text
    assert "384 tokens a run" in text  # of a budget of 400
    for picture in ("learned_forgotten.png", "losses.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
        assert picture in text
    assert not list(tmp_path.glob("units/*/training/checkpoint-*"))
    assert {status.state for status in trial_status(tmp_path)} == {"finished"}
    assert TrialsResult.load(tmp_path).rows == result.rows


def test_what_is_finished_is_kept_and_an_arm_can_be_added(make_config, finished, in_this_process, tmp_path):
    shutil.copytree(finished(make_config(arms=ARMS[:1])), tmp_path, dirs_exist_ok=True)
    first = TrialsResult.load(tmp_path)
    again = run_trials(make_config(arms=ARMS[:1]), tmp_path)
    assert in_this_process == []
    assert again.rows == first.rows
    more = run_trials(make_config(arms=ARMS[:2]), tmp_path)
    assert in_this_process == ["prepare", "freeze-deep-seed0"]
    assert more.rows[:2] == first.rows


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"train": {"learning_rate": 1e-2}}, r"train\.learning_rate: 0\.001 there, 0\.01 here"),
        ({"evaluate": {"limit": 5}}, r"evaluate\.limit: 8 there, 5 here"),
        ({"arms": [{"name": "full", "strategy": "freeze-deep"}]}, r"another arm of that name.*strategy"),
    ],
)
@pytest.mark.usefixtures("in_this_process")
def test_a_folder_of_another_config_is_refused_in_one_line(make_config, finished, tmp_path, change, line):
    shutil.copytree(finished(make_config(arms=ARMS[:1])), tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "results.json").read_bytes()
    with pytest.raises(LayerTracerError, match=line) as raised:
        run_trials(make_config(**{"arms": ARMS[:1], **change}), tmp_path)
    assert "\n" not in str(raised.value)
    assert (tmp_path / "results.json").read_bytes() == before


def test_a_file_that_was_renamed_holds_the_same_items(make_config, finished, world, in_this_process, tmp_path):
    shutil.copytree(finished(make_config(arms=ARMS[:1])), tmp_path / "out")
    shutil.copy(world / "held.txt", tmp_path / "renamed.txt")
    more = run_trials(make_config(arms=ARMS[:2], evaluate={"new": [str(tmp_path / "renamed.txt")]}), tmp_path / "out")
    assert in_this_process == ["prepare", "freeze-deep-seed0"]
    assert Summary(more).gain("freeze-deep", "new/bits_per_byte", "full") is not None
    assert not any("other items" in note for note in more.notes)


@pytest.mark.parametrize("left", ["everything", "runs"])
def test_without_its_config_a_folder_takes_no_runs_of_another_one(
    make_config, finished, in_this_process, tmp_path, left
):
    shutil.copytree(finished(make_config(arms=ARMS[:1])), tmp_path, dirs_exist_ok=True)
    (tmp_path / "trial.json").unlink()
    if left == "runs":
        (tmp_path / "prepared.json").unlink()
    other = make_config(arms=ARMS[:1], train={"learning_rate": 1e-2})
    with pytest.raises(
        LayerTracerError, match=r"another config: train\.learning_rate: 0\.001 there, 0\.01 here"
    ) as raised:
        run_trials(other, tmp_path)
    assert "\n" not in str(raised.value)
    # The config that it belongs to goes on, with more arms and seeds.
    more = run_trials(make_config(arms=ARMS[:2], seeds=[0, 1]), tmp_path)
    assert more.is_complete
    assert not {"base", "full-seed0"} & set(in_this_process)


def test_a_finished_run_may_be_copied_from_a_folder_of_the_same_config_and_of_no_other(
    make_config, finished, in_this_process, tmp_path
):
    config = make_config(arms=ARMS[:1])
    units = tmp_path / "units"
    shutil.copytree(finished(config) / "units", units)
    # The untouched model's run depends on no training.
    assert run_trials(config, tmp_path).is_complete
    assert in_this_process == ["prepare"]

    other = make_config(arms=ARMS[:1], train={"learning_rate": 1e-2})
    shutil.copytree(units / "base", tmp_path / "other" / "units" / "base")
    run_trials(other, tmp_path / "other")
    assert in_this_process == ["prepare", "prepare", "full-seed0"]
    shutil.rmtree(units / "full-seed0")
    shutil.copytree(tmp_path / "other" / "units" / "full-seed0", units / "full-seed0")
    line = r"full-seed0 holds a run of another config: train\.learning_rate: 0\.01 there, 0\.001 here\. Remove that folder"
    with pytest.raises(LayerTracerError, match=line):
        TrialsResult.load(tmp_path)
    # Its settings alone are those of this config.
    shutil.copy(finished(config) / "units" / "full-seed0" / "unit.json", units / "full-seed0")
    with pytest.raises(LayerTracerError, match=r"full-seed0 holds a run of another config: fingerprint: "):
        run_trials(config, tmp_path)


def test_results_of_an_arm_are_not_shown_as_those_of_another_one_of_its_name(
    make_config, finished, in_this_process, tmp_path
):
    shutil.copytree(finished(make_config(arms=ARMS[:1])), tmp_path, dirs_exist_ok=True)
    other = make_config(arms=[{"name": "full", "strategy": "freeze-deep"}])
    for look in (lambda: run_trials(other, tmp_path), lambda: TrialsResult.load(tmp_path)):
        with pytest.raises(LayerTracerError, match=r"another arm of that name.*strategy"):
            look()


def test_other_text_or_other_packages_are_another_config(make_config, finished, world, tmp_path, monkeypatch):
    text = tmp_path / "new.txt"
    shutil.copy(world / "new.txt", text)
    # The same text in another place is the same config.
    config = make_config(arms=ARMS[:1], train={"files": [str(text)]})
    shutil.copytree(finished(make_config(arms=ARMS[:1])), tmp_path / "out")
    assert run_trials(config, tmp_path / "out").is_complete
    text.write_text(text.read_text() + " More.")
    with pytest.raises(LayerTracerError, match=r"train\.files"):
        run_trials(config, tmp_path / "out")
    shutil.copy(world / "new.txt", text)
    monkeypatch.setattr("hf_layertracer.trials.fingerprint.version", lambda name: "99.0")
    with pytest.raises(LayerTracerError, match=r"versions\..* there, 99\.0 here"):
        run_trials(config, tmp_path / "out")


def test_a_run_that_fails_is_reported_and_the_others_finish(make_config, in_this_process, tmp_path, monkeypatch):
    train = unit._train

    def fail(folder, *args):
        if folder.path.name == "full-seed0":
            raise RuntimeError("No space left on device")
        return train(folder, *args)

    monkeypatch.setattr(unit, "_train", fail)
    result = run_trials(make_config(), tmp_path)
    assert result.failures == {"full-seed0": "No space left on device"}
    assert result.missing == ["full-seed0"]
    assert [row["arm"] for row in result.rows] == ["base", "freeze-deep"]
    assert "No space left on device" in (tmp_path / "results.md").read_text()
    assert [status.state for status in trial_status(tmp_path)] == ["finished", "failed", "finished"]

    monkeypatch.setattr(unit, "_train", train)
    in_this_process.clear()
    assert run_trials(make_config(), tmp_path).is_complete
    assert in_this_process == ["full-seed0"]


DIVERGED = "diverged: new/bits_per_byte is not finite; lower its learning rate."


def test_an_arm_that_diverges_has_failed_and_the_others_finish(make_config, in_this_process, tmp_path):
    arms = [{"strategy": "full", "learning_rate": 1e9}, {"strategy": "freeze-deep"}]
    result = run_trials(make_config(arms=arms), tmp_path)
    assert in_this_process == ["prepare", "base", "full-seed0", "freeze-deep-seed0"]
    assert result.failures == {"full-seed0": DIVERGED}
    assert [row["arm"] for row in TrialsResult.load(tmp_path).rows] == ["base", "freeze-deep"]
    assert DIVERGED in (tmp_path / "results.md").read_text()
    for path in tmp_path.rglob("*.json"):
        json.loads(path.read_text(), parse_constant=lambda word, path=path: pytest.fail(f"{word} in {path}"))


def test_a_run_that_diverged_under_an_earlier_version_is_shown_as_one_that_failed(make_config, finished, tmp_path):
    shutil.copytree(finished(make_config(arms=ARMS[:2])), tmp_path, dirs_exist_ok=True)
    path = TrialFolder(tmp_path).unit("full-seed0").result
    run = read_json(path)
    run["evaluation"]["metrics"]["new/bits_per_byte"] = run["evaluation"]["items"][0]["value"] = math.nan
    path.write_text(json.dumps(run))
    result = TrialsResult.load(tmp_path)
    assert result.failures == {"full-seed0": "diverged: new/bits_per_byte is not finite."}
    assert result.missing == ["full-seed0"]
    assert "nan" not in result.to_markdown()


def test_an_untouched_model_without_finite_numbers_is_no_fault_of_a_learning_rate(
    make_config, in_this_process, tmp_path, monkeypatch
):
    evaluate = unit.evaluate_model

    def overflow(*args):
        result = evaluate(*args)
        result.metrics["old/perplexity"] = math.inf
        return result

    monkeypatch.setattr(unit, "evaluate_model", overflow)
    result = run_trials(make_config(arms=ARMS[:1]), tmp_path)
    assert result.failures["base"] == (
        "old/perplexity of the untouched model is not finite: check its weights, or choose another dtype."
    )
    assert "Failed" in result.to_markdown()


@pytest.mark.parametrize("save_steps", [2, None], ids=["every second step", "whenever it is time"])
@EITHER
def test_a_run_that_was_cut_during_its_training_goes_on_to_the_same_numbers(
    make_config, finished, in_this_process, tmp_path, monkeypatch, arm, save_steps
):
    config = make_config(arms=[arm], train={"save_steps": save_steps})
    whole = TrialsResult.load(finished(config))
    # A save after the fourth step: the next would have to wait.
    passed = iter(range(100))
    monkeypatch.setattr(unit._SaveNowAndThen, "on_train_begin", lambda *_, **__: None)
    monkeypatch.setattr(unit, "from_main_process", lambda due: next(passed) == 3)

    def cut(self, args, state, control, **_):
        if state.global_step == 5:
            raise RuntimeError("cut")

    with monkeypatch.context() as patch:
        patch.setattr(unit._Progress, "on_step_end", cut)
        assert run_trials(config, tmp_path / "cut").failures
    training = tmp_path / "cut" / "units" / f"{arm['strategy']}-seed0" / "training"
    # What a kill in the middle of writing leaves: it holds no mark that it is whole.
    (training / "checkpoint-5").mkdir()
    resumed = run_trials(config, tmp_path / "cut")
    assert LayerTracerReport.load(training).training.steps == 2
    for ours, theirs in zip(resumed.rows, whole.rows, strict=True):
        assert ours["metrics"] == pytest.approx(theirs["metrics"], rel=1e-5)
    assert resumed.units[1]["losses"] == [[step, pytest.approx(loss)] for step, loss in whole.units[1]["losses"]]
    assert resumed.rows[1]["cost"]["flops"] == whole.rows[1]["cost"]["flops"]


@EITHER
def test_a_run_that_was_cut_during_its_evaluation_is_not_trained_again(
    make_config, finished, in_this_process, tmp_path, monkeypatch, arm
):
    config = make_config(arms=[arm], train={"save_steps": 2})
    whole = TrialsResult.load(finished(config))
    evaluate = unit.evaluate_model
    monkeypatch.setattr(unit, "evaluate_model", lambda *args: (_ for _ in ()).throw(RuntimeError("cut")))
    assert run_trials(config, tmp_path / "cut").failures
    monkeypatch.setattr(unit, "evaluate_model", evaluate)
    monkeypatch.setattr(unit, "_train", lambda *args: pytest.fail("trained again"))
    cut = run_trials(config, tmp_path / "cut")
    for ours, theirs in zip(cut.rows, whole.rows, strict=True):
        assert ours["metrics"] == pytest.approx(theirs["metrics"], rel=1e-5)


def test_checkpoints_take_a_small_part_of_the_time_however_long_each_takes(monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(unit.time, "monotonic", lambda: clock.now)
    saves, control = unit._SaveNowAndThen(every=5), TrainerControl()
    args, state = None, TrainerState()
    saves.on_train_begin(args, state, control)
    written: dict[float, float] = {}
    while state.global_step < 5000:
        state.global_step, clock.now, control.should_save = state.global_step + 1, clock.now + 1, False
        saves.on_step_end(args, state, control)
        if control.should_save:
            assert state.global_step % 5 == 0, "only where losses are logged, a run goes on to the same ones"
            began = clock.now
            clock.now += 40 if len(written) < 3 else 0.1  # a full disk cache, or a small model
            saves.on_save(args, state, control)
            written[began] = clock.now - began
    begins = list(written)
    assert begins[0] == 1000 + unit._FIRST_SAVE
    for save, following in pairwise(begins):
        assert following - save >= max(unit._FIRST_SAVE, written[save] / unit._SAVING)
    assert len(written) > 50
    assert sum(written.values()) < unit._SAVING * (clock.now - 1000)


def test_processes_write_a_checkpoint_together_when_the_main_one_says_so(monkeypatch):
    for said in (True, False):
        asked: list[bool] = []
        monkeypatch.setattr(unit, "from_main_process", lambda own, said=said, asked=asked: asked.append(own) or said)
        saves, control = unit._SaveNowAndThen(every=1), TrainerControl()
        saves._due = math.inf if said else 0.0  # the other way round by the clock of this process
        saves.on_step_end(None, TrainerState(global_step=1), control)
        assert asked == [not said]
        assert control.should_save is said


def test_without_checkpoints_a_run_that_was_cut_is_trained_again(make_config, in_this_process, tmp_path, monkeypatch):
    config = make_config(arms=ARMS[:1], train={"save_steps": 0})
    with monkeypatch.context() as patch:
        patch.setattr(unit, "evaluate_model", lambda *args: (_ for _ in ()).throw(RuntimeError("cut")))
        assert run_trials(config, tmp_path).failures
    assert not list(tmp_path.rglob("checkpoint-*"))
    assert run_trials(config, tmp_path).is_complete


def test_text_that_is_trained_on_and_evaluated_on_is_told_whatever_its_path(
    make_config, in_this_process, world, tmp_path
):
    def told(new: Path, out: str) -> bool:
        # The text of all, of an arm, and none of both.
        config = make_config(
            arms=[{"strategy": "full", "files": [str(world / "old.txt")]}], evaluate={"new": [str(new)]}
        )
        folder = TrialFolder(tmp_path / out)
        write_json(folder.trial, {"config": config.model_dump()})
        prepare(folder)
        return any("learned by heart" in note for note in read_json(folder.prepared)["notes"])

    shutil.copy(world / "old.txt", tmp_path / "copy.txt")
    assert told(world / ".." / world.name / "new.txt", "other path")
    assert told(tmp_path / "copy.txt", "copy of an arm's")
    assert not told(world / "held.txt", "neither")


@pytest.mark.parametrize("name", ["held.txt", "new.txt", "old.txt"])
def test_old_text_that_is_new_text_too_is_told(make_config, world, tmp_path, name):
    config = make_config(arms=ARMS[:1], evaluate={"old": [str(world / name)]})
    write_json(TrialFolder(tmp_path).trial, {"config": config.model_dump()})
    prepare(TrialFolder(tmp_path))
    notes = read_json(TrialFolder(tmp_path).prepared)["notes"]
    assert any("nothing of it shows what was forgotten" in note for note in notes) is (name != "old.txt")


def test_data_that_is_shorter_than_the_budget_is_said_to_be_repeated(make_config, in_this_process, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("The capital city of France is Paris. " * 20)
    result = run_trials(make_config(arms=ARMS[:1], train={"files": [str(short)]}), tmp_path / "out")
    assert any("read" in note and "times" in note for note in result.notes)


def test_two_processes_never_work_on_one_folder(make_config, finished, tmp_path):
    shutil.copytree(finished(make_config(arms=ARMS[:1])), tmp_path, dirs_exist_ok=True)
    import subprocess
    import sys

    import psutil

    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        mark = {"pid": other.pid, "started": psutil.Process(other.pid).create_time()}
        tmp_path.joinpath("running.json").write_text(json.dumps(mark))
        with pytest.raises(LayerTracerError, match=f"Process {other.pid} is running the trials"):
            run_trials(make_config(arms=ARMS[:1]), tmp_path)
    finally:
        other.communicate(b"\n")
    assert run_trials(make_config(arms=ARMS[:1]), tmp_path).is_complete


def test_a_folder_without_a_trial_is_one_line(tmp_path: Path):
    for read in (TrialsResult.load, trial_status):
        with pytest.raises(LayerTracerError, match="holds no trial"):
            read(tmp_path)


def test_mixed_precision_that_the_cpu_would_emulate_is_warned_of_before_hours_of_it(
    make_config, monkeypatch, tmp_path
):
    asked: list[torch.dtype] = []
    monkeypatch.setattr("hf_layertracer.trials.run.warn_if_emulated", lambda dtype, device: asked.append(dtype))
    (tmp_path / "trial.json").mkdir()  # nothing has to be run
    for wanted in (False, True):
        with pytest.raises(LayerTracerError, match="Could not read"):
            run_trials(make_config(train={"bf16": wanted}), tmp_path)
    assert asked == [torch.bfloat16]


@pytest.mark.parametrize("arm", [{"strategy": "full"}, {"strategy": "lora"}], ids=["layers", "adapters"])
def test_in_mixed_precision_all_models_are_evaluated_in_their_own_type(
    make_config, in_this_process, tmp_path, monkeypatch, arm
):
    train = {"bf16": True, "learning_rate": 1e-30}  # nothing is learned, so nothing may differ
    result = run_trials(make_config(arms=[arm], train=train), tmp_path)
    untouched, trained = (result.runs_of(name)[0]["evaluation"] for name in ("base", arm["strategy"]))
    assert trained["items"] == untouched["items"]

    # Killed in the evaluation: the next call loads what was trained.
    shutil.rmtree(tmp_path / "units")
    evaluate = unit.evaluate_model

    def killed(model, *args):
        if in_this_process[-1] != "base":
            raise RuntimeError("killed")
        return evaluate(model, *args)

    monkeypatch.setattr(unit, "evaluate_model", killed)
    assert run_trials(make_config(arms=[arm], train=train), tmp_path).failures
    monkeypatch.setattr(unit, "evaluate_model", evaluate)
    again = run_trials(make_config(arms=[arm], train=train), tmp_path).runs_of(arm["strategy"])[0]
    assert again["evaluation"]["items"] == untouched["items"]


def test_blocks_longer_than_the_model_reads_are_refused(make_config, in_this_process, tmp_path):
    with pytest.raises(LayerTracerError, match=r"train\.sequence_length: 65 is longer than .* context of 64 tokens"):
        run_trials(make_config(train={"sequence_length": 65}), tmp_path)


def test_a_file_in_the_place_of_the_folder_is_one_line(make_config, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(LayerTracerError, match=r"Nothing can be written to .*out: Not a directory"):
        run_trials(make_config(), tmp_path / "out")


@pytest.mark.parametrize(("name", "line"), [("none", "There is no such folder"), ("empty", "holds no model")])
def test_a_folder_without_a_model_is_one_line(make_config, tmp_path, name, line):
    (tmp_path / "empty").mkdir()
    with pytest.raises(LayerTracerError, match=rf"^model: .*{line}"):
        run_trials(make_config(model=str(tmp_path / name)), tmp_path / "out")
