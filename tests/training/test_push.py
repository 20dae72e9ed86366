"""A trainer that pushes: whatever it pushes, and however, brings its report, picture and card in the same commit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, hf_hub_download, list_models
from huggingface_hub.repocard_data import model_index_to_eval_results
from markdown_it import MarkdownIt
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback

from hf_layertracer import (
    LayerTracerCallback,
    LayerTracerError,
    LayerTracerMixin,
    LayerTracerReport,
    LayerTracerTrainer,
    compare_reports,
    list_reports,
    push_report,
)
from hf_layertracer.errors import HubError
from hf_layertracer.report.card_section import END, START


FILES = {"README.md", "layertracer_report.json", "layertracer_report.png"}
WEIGHTS = "model.safetensors"


@pytest.fixture
def make_trainer(make_model, make_args, quick, token_dataset, tokenizer):
    """`make_trainer(config={}, model=None, callback=False, **args)`: one that traces, by its class or by its callback."""

    def make(config: dict | None = None, model=None, callback: bool = False, **changes) -> Trainer:
        args = make_args("tiny", hub_model_id="alice/tiny", **changes)
        settings = {
            "model": model or make_model(),
            "args": args,
            "train_dataset": token_dataset,
            "eval_dataset": token_dataset,
            "processing_class": tokenizer,
        }
        config = quick(**config or {})
        if callback:
            trainer = Trainer(**settings)
            LayerTracerCallback(config).attach(trainer)
            return trainer
        return LayerTracerTrainer(layertracer_config=config, **settings)

    return make


def card_of(files: dict[str, bytes]) -> ModelCard:
    return ModelCard(files["README.md"].decode())


def assert_whole(repo) -> None:
    """At no commit does a reader see weights without a report of the same moment, or a report without its picture."""
    commits = [commit for commit in repo.commits() if "model.safetensors" in commit.files]
    assert commits
    for commit in commits:
        assert set(commit.files) >= FILES, commit.title
        card = commit.files["README.md"].content.decode()
        assert card.count(START) == card.count(END) == 1, commit.title
        assert "layertracer" in ModelCard(card).data.tags


@pytest.mark.parametrize("callback", [False, True], ids=["class", "callback"])
def test_a_push_at_the_end_is_one_commit_with_everything(hub, make_trainer, callback):
    trainer = make_trainer(callback=callback)
    trainer.train()
    trainer.evaluate()
    trainer.push_to_hub()
    repo = hub.repo("alice/tiny")
    assert [commit.title for commit in repo.commits()] == ["End of training"]
    assert_whole(repo)
    text = repo.files["README.md"].decode()
    assert "## Training procedure" in text.split(START)[0], "what Trainer's own card says"
    section = text.split(START)[1]
    for said in (
        "### Layer plan",
        "**Frozen layers:** 2-3",
        "**Reason:**",
        "### Training",
        "### Reproduce",
        "### Citation",
    ):
        assert said in section
    assert set(card_of(repo.files).data.tags) >= {"layertracer", "generated_from_trainer"}
    report = LayerTracerReport.load("alice/tiny")
    assert report.training.steps == 3
    assert [model.id for model in list_models(filter="layertracer")] == ["alice/tiny"]


def test_events_alone_push_report_and_picture_and_the_card_follows(
    hub, make_model, make_args, quick, token_dataset, tokenizer
):
    """The trainer writes its card after the last event that a callback hears of."""
    callback = LayerTracerCallback(quick())
    trainer = Trainer(
        model=make_model(),
        args=make_args("tiny", hub_model_id="alice/tiny"),
        train_dataset=token_dataset,
        processing_class=tokenizer,
        callbacks=[callback],
    )
    trainer.train()
    trainer.push_to_hub()
    files = hub.repo("alice/tiny").files
    assert set(files) >= {*FILES, WEIGHTS}
    assert LayerTracerReport.load("alice/tiny") == callback.report
    assert START not in files["README.md"].decode()
    push_report(callback.report, "alice/tiny")
    card = card_of(hub.repo("alice/tiny").files)
    assert START in card.text
    assert "layertracer" in card.data.tags


def test_what_was_pushed_is_loaded_with_its_report(hub, make_trainer, assert_same_weights):
    trainer = make_trainer()
    trainer.train()
    trainer.push_to_hub()
    loaded = AutoModelForCausalLM.from_pretrained("alice/tiny")
    assert_same_weights(loaded, trainer.model)
    report = LayerTracerReport.load("alice/tiny")
    assert report.plan.frozen_layers == [2, 3]
    assert report.num_layers == loaded.config.num_hidden_layers


@pytest.mark.parametrize("strategy", ["end", "every_save", "checkpoint", "all_checkpoints"])
def test_each_strategy_pushes_weights_with_their_report(hub, make_trainer, strategy):
    trainer = make_trainer(
        {"diagnose_steps": 2},
        callback=strategy == "checkpoint",
        push_to_hub=True,
        hub_strategy=strategy,
        hub_always_push=True,
        save_strategy="steps",
        save_steps=2,
        max_steps=5,
        eval_strategy="steps",
        eval_steps=2,
    )
    trainer.train()
    trainer.save_model()  # with push_to_hub, this pushes
    repo = hub.repo("alice/tiny")
    assert_whole(repo)
    titles = [commit.title for commit in repo.commits()]
    steps = {"end": [], "every_save": ["", ""], "checkpoint": ["", ", checkpoint"] * 2}
    expected = [
        f"Training in progress, step {step}{suffix}"
        for step in (2, 4, 5)
        for suffix in dict.fromkeys(steps.get(strategy, steps["checkpoint"]))
    ]
    assert titles == [*expected, "Model save"]
    for commit in repo.commits():
        report = json.loads(commit.files["layertracer_report.json"].content)
        step = int(commit.title.split()[4].rstrip(",")) if commit.title.startswith("Training") else 5
        assert report["training"]["steps"] == step, "the report is of the weights beside it"
        assert [d["step"] for d in report["diagnoses"]] == [s for s in (0, 2, 4) if s <= step]
    folders = {path.rsplit("/", 1)[0] for path in repo.files if "/" in path}
    assert folders == {
        "checkpoint": {"last-checkpoint"},
        "all_checkpoints": {f"checkpoint-{s}" for s in (2, 4, 5)},
    }.get(strategy, set())
    for folder in folders:
        assert {f"{folder}/{name}" for name in (WEIGHTS, "layertracer_report.json", "layertracer_report.png")} <= set(
            repo.files
        )


def test_a_checkpoint_stays_as_it_is_once_its_upload_has_begun(hub, make_trainer):
    """The Hub's client lists a folder and then reads what it listed: what is gone by then breaks the push."""

    def files_of(args, state) -> dict[str, tuple[int, int]]:
        checkpoint = Path(args.output_dir, f"checkpoint-{state.global_step}")
        return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in checkpoint.iterdir()}

    class Watching(TrainerCallback):
        """Behind the tracer: it sees what that has done at each event."""

        def __init__(self):
            self.before, self.after = [], []

        def on_push_begin(self, args, state, control, **kwargs):
            self.before.append(files_of(args, state))

        def on_save(self, args, state, control, **kwargs):
            self.after.append(files_of(args, state))

    trainer = make_trainer(
        push_to_hub=True,
        hub_strategy="all_checkpoints",
        hub_always_push=True,
        save_strategy="steps",
        save_steps=2,
    )
    watching = Watching()
    trainer.add_callback(watching)
    trainer.train()
    assert len(watching.before) == 2
    assert watching.after == watching.before


def test_a_checkpoint_that_is_not_pushed_gets_its_report_though_one_of_its_name_was(hub, make_trainer):
    trainer = make_trainer(save_strategy="steps", save_steps=3)
    trainer.train()
    trainer.push_to_hub()
    report = Path(trainer.args.output_dir, "checkpoint-3", "layertracer_report.json")
    report.unlink()
    trainer.train()
    assert report.is_file()


def test_the_results_are_those_of_the_weights_that_were_pushed(hub, make_trainer):
    trainer = make_trainer({"diagnose_after": True}, eval_strategy="steps", eval_steps=1)
    trainer.train()
    trainer.push_to_hub(tags=["mine"], language="en", dataset_tags="my/data", dataset="Mine", tasks="text-generation")
    data = card_of(hub.repo("alice/tiny").files).data
    results = {(r.dataset_type, r.metric_type): r.metric_value for r in data.eval_results}
    report = LayerTracerReport.load("alice/tiny")
    assert results["layertracer-evaluation", "loss"] == report.training.eval_loss_after
    assert results["layertracer-probes", "accuracy"] == report.latest.scores.accuracy
    assert results["layertracer-probes", "vulnerable_layer"] == report.sensitivity.vulnerable_layer
    assert set(data.tags) >= {"mine", "generated_from_trainer", "layertracer"}
    assert data.language == ["en"]


def test_without_a_later_diagnosis_nothing_is_claimed_of_the_probes(hub, make_trainer):
    trainer = make_trainer()
    trainer.train()
    trainer.push_to_hub()
    assert not card_of(hub.repo("alice/tiny").files).data.eval_results


def test_the_hub_lists_the_results(hub, make_trainer):
    from huggingface_hub import model_info

    trainer = make_trainer(eval_strategy="steps", eval_steps=1)
    trainer.train()
    trainer.push_to_hub()
    name, results = model_index_to_eval_results(model_info("alice/tiny").card_data.to_dict()["model-index"])
    assert name == "tiny"
    assert [result.metric_name for result in results] == ["Evaluation loss"]


def test_pushing_twice_changes_what_has_changed_and_keeps_one_section(hub, make_trainer):
    trainer = make_trainer()
    trainer.train()
    trainer.push_to_hub()
    first = hub.repo("alice/tiny").files
    trainer.push_to_hub()
    assert hub.repo("alice/tiny").files == first
    assert len(hub.repo("alice/tiny").commits()) == 1


def test_private_repositories_and_branches(hub, make_trainer):
    trainer = make_trainer(hub_private_repo=True)
    trainer.train()
    trainer.push_to_hub()
    assert hub.repo("alice/tiny").private
    hub.repo("alice/tiny").refs["v2"] = hub.repo("alice/tiny").commits()[0]
    trainer.args.hub_revision = "v2"
    trainer.state.global_step += 1
    trainer.push_to_hub(commit_message="again", language="de")
    assert hub.repo("alice/tiny").commits("v2")[-1].title == "again"
    assert len(hub.repo("alice/tiny").commits()) == 1


def test_a_traced_run_that_does_not_push_needs_no_hub(make_trainer):
    trainer = make_trainer()
    trainer.train()
    assert Path(trainer.args.output_dir, "layertracer_report.json").is_file()


def test_a_model_that_was_not_measured_is_pushed_with_its_plan(hub, make_args, token_dataset):
    from transformers import BertConfig, BertForSequenceClassification

    model = BertForSequenceClassification(
        BertConfig(vocab_size=80, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    )
    dataset = token_dataset.remove_columns("labels").add_column("labels", [0, 1] * 8)
    args = make_args("tiny", hub_model_id="alice/tiny")
    trainer = LayerTracerTrainer(model=model, args=args, train_dataset=dataset)
    trainer.train()
    trainer.push_to_hub()
    assert_whole(hub.repo("alice/tiny"))
    assert "Nothing was measured" in hub.repo("alice/tiny").files["README.md"].decode()
    report = LayerTracerReport.load("alice/tiny")
    assert report.latest is None
    (found,) = list_reports()
    (row,) = compare_reports([found])
    assert (row["strategy"], row["trained_layers"], row["vulnerable_layer"]) == ("freeze-deep", [0], None)
    with pytest.raises(LayerTracerError, match="no measurements"):
        push_report(report, "alice/reports", repo_type="dataset")


def test_nothing_of_the_machine_leaves_it(hub, make_trainer, make_model, tmp_path, monkeypatch):
    secret = "s3cret-value-of-a-variable"
    monkeypatch.setenv("MY_SECRET", secret)
    monkeypatch.setenv("USER", "private-user-name")
    for name in ("socket.gethostname", "platform.node", "getpass.getuser"):
        monkeypatch.setattr(name, lambda: "private-user-name")
    folder = tmp_path / "private-user-name" / "my-base-model"
    make_model().save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    trainer = make_trainer(
        {"diagnose_after": True},
        model=model,
        push_to_hub=True,
        hub_strategy="all_checkpoints",
        save_strategy="steps",
        save_steps=2,
    )
    trainer.train()
    folder.rename(tmp_path / "elsewhere")  # Trainer's card names what it cannot find here: it could be on the Hub
    trainer.push_to_hub()
    repo = hub.repo("alice/tiny")
    assert json.loads(repo.files["layertracer_report.json"])["model"]["id"] == "my-base-model"
    ours = [b"layertracer_report", b"README"]
    seen = 0
    for commit in repo.commits():
        for path, file in commit.files.items():
            if any(name in path.encode() for name in ours):
                seen += 1
                for word in (str(tmp_path), "private-user-name", secret, str(Path.cwd())):
                    assert word.encode() not in file.content, f"{word} in {path} of {commit.title}"
    assert seen > 6
    assert b"my-base-model" in repo.files["README.md"]


def test_a_broken_push_in_the_background_is_told_and_the_next_one_brings_everything(hub, make_trainer, caplog):
    hub.fail("/commit/", method="POST", status=500)
    trainer = make_trainer(push_to_hub=True, hub_strategy="every_save", save_strategy="steps", save_steps=2)
    trainer.train()
    told = [r.getMessage() for r in caplog.records if "push during training failed" in r.getMessage()]
    assert len(told) == 1
    assert "HTTP 500" in told[0]
    assert "\n" not in told[0]
    trainer.push_to_hub()
    assert_whole(hub.repo("alice/tiny"))
    assert LayerTracerReport.load("alice/tiny").training.steps == 3


FAILURES = {
    "logged out": (lambda hub, env: env.delenv("HF_TOKEN"), "Log in with"),
    "wrong token": (lambda hub, env: env.setenv("HF_TOKEN", "hf_wrong"), "wrong or has expired"),
    "no right": (lambda hub, env: env.setenv("HF_TOKEN", hub.other_token), "may not do this to 'alice/tiny"),
    "server error": (lambda hub, env: hub.fail("/commit/", status=500), "HTTP 500"),
    "cut off": (lambda hub, env: hub.fail("/commit/"), "connection to the Hub broke"),
    "upload refused": (lambda hub, env: hub.fail("/lfs/upload/", status=403), "may not do this"),
}


def test_what_goes_wrong_is_one_line_and_the_same_call_finishes(hub, make_trainer, monkeypatch):
    trainer = make_trainer()
    trainer.train()
    for number, (prepare, message) in enumerate(FAILURES.values()):
        name = f"alice/tiny-{number}"
        trainer.hub_model_id, trainer.args.hub_model_id = None, name
        with monkeypatch.context() as environment:
            prepare(hub, environment)
            with pytest.raises(HubError, match=message) as caught:
                trainer.push_to_hub()
        assert "\n" not in str(caught.value)
        trainer.push_to_hub()
        assert_whole(hub.repo(name))
        assert hub.repo(name).files[WEIGHTS] == Path(trainer.args.output_dir, WEIGHTS).read_bytes()


def test_a_file_of_over_ten_megabytes_goes_with_its_report(hub, make_model, make_args, quick, token_dataset):
    model = make_model(vocab_size=50_000, hidden_size=64)
    args = make_args("tiny", hub_model_id="alice/tiny", max_steps=1)
    trainer = LayerTracerTrainer(model=model, args=args, train_dataset=token_dataset, layertracer_config=quick())
    trainer.train()
    trainer.push_to_hub()
    assert_whole(hub.repo("alice/tiny"))
    assert len(hub.repo("alice/tiny").files[WEIGHTS]) > 10 * 2**20
    assert Path(hf_hub_download("alice/tiny", WEIGHTS)).read_bytes() == hub.repo("alice/tiny").files[WEIGHTS]


@pytest.mark.slow
def test_two_processes_push_once(hub, make_model, tmp_path):
    make_model().save_pretrained(tmp_path / "model")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = Path(__file__).parent / "scripts" / "push_distributed.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, script, tmp_path], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for name in ("trainer", "callback"):
        repo = hub.repo(f"alice/{name}")
        assert [commit.title.rsplit(", ", 1)[-1] for commit in repo.commits()] == [
            "step 2",
            "step 3",
            "End of training",
        ]
        assert_whole(repo)
        reports = [json.loads(commit.files["layertracer_report.json"].content) for commit in repo.commits()]
        assert [report["training"]["steps"] for report in reports] == [2, 3, 3]
        # What the other process saw is known only where both take part.
        assert [report["training"]["tokens"] for report in reports] == [None, None, 2 * 3 * 2 * 12]


def test_the_three_lines_in_the_card_train_the_same_model_again(
    hub, make_model, make_args, token_dataset, tokenizer, assert_same_weights, quick
):
    """With its own strategy, options and probes, whose values all have to stand in the card."""
    config = quick(
        strategy="explicit", train_layers="1,3", train_embeddings=False, perturbation="noise", noise_scale=0.4
    )
    settings = {"train_dataset": token_dataset, "processing_class": tokenizer}
    first = LayerTracerTrainer(
        make_model(), make_args("tiny", hub_model_id="alice/tiny"), layertracer_config=config, **settings
    )
    first.train()
    first.push_to_hub()
    card = hub.repo("alice/tiny").files["README.md"].decode()
    (code,) = [token.content for token in MarkdownIt().parse(card) if token.type == "fence" and token.info == "python"]
    assert len(code.splitlines()) == 3
    model = make_model()
    exec(code, {"model": model, "args": make_args("again"), "dataset": token_dataset, "tokenizer": tokenizer})
    assert_same_weights(model, first.model)
    again = LayerTracerReport.load(make_args("again").output_dir)
    assert again.sensitivity == first.layertracer_report.sensitivity
    assert again.plan == first.layertracer_report.plan


@pytest.mark.parametrize("base", ["unnamed", "local"])
def test_adapters_are_pushed_with_a_report_beside_their_own_card(
    hub, make_model, make_args, quick, token_dataset, tmp_path, base
):
    from peft import LoraConfig, get_peft_model

    model = make_model()
    if base == "local":
        model.save_pretrained(tmp_path / "my-base-model")
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "my-base-model")
    model = get_peft_model(model, LoraConfig(target_modules=["q_proj"], r=2, task_type="CAUSAL_LM"))
    args = make_args("tiny", hub_model_id="alice/tiny")
    trainer = LayerTracerTrainer(model=model, args=args, train_dataset=token_dataset, layertracer_config=quick())
    trainer.train()
    trainer.push_to_hub()
    files = hub.repo("alice/tiny").files
    assert set(files) >= {*FILES, "adapter_model.safetensors"}
    card = card_of(files)
    assert card.data.library_name == "peft"
    assert "layertracer" in card.data.tags
    assert card.text.count(START) == 1
    assert "## Training procedure" in card.text
    assert str(tmp_path).encode() not in files["README.md"] + files["layertracer_report.json"]


def test_a_trainer_with_a_card_of_its_own_keeps_it(hub, make_model, make_args, quick, text_dataset, tokenizer):
    from trl import SFTConfig, SFTTrainer

    class TracedSFT(LayerTracerMixin, SFTTrainer):
        pass

    args = make_args(
        "tiny", kind=SFTConfig, hub_model_id="alice/tiny", push_to_hub=True, save_strategy="steps", save_steps=2
    )
    trainer = TracedSFT(
        model=make_model(),
        args=args,
        train_dataset=text_dataset,
        processing_class=tokenizer,
        layertracer_config=quick(),
    )
    trainer.train()
    trainer.push_to_hub()
    repo = hub.repo("alice/tiny")
    assert_whole(repo)
    card = card_of(repo.files)
    assert set(card.data.tags) >= {"layertracer", "sft", "trl"}
    assert "trained with SFT" in card.text
