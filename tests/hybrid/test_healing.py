"""Both stages on tiny models: what trains, against which target, and that an interruption changes nothing."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import Dataset
from transformers import AutoModelForCausalLM, TrainingArguments

from hf_layertracer import HybridRecipe, LayerTracerError, build_hybrid, make_plan
from hf_layertracer.hybrid.healing.config import HealingConfig
from hf_layertracer.hybrid.healing.heal import _healed, heal_hybrid
from hf_layertracer.hybrid.healing.trainers import DonorDistillationTrainer, MixerAlignmentTrainer
from hf_layertracer.hybrid.provenance import Healing, HybridRecord


KINDS = {"Llama": "mamba2", "Qwen3": "gated_deltanet"}
MIXERS = {"Llama": "mamba", "Qwen3": "linear_attn"}


@pytest.fixture(scope="module", params=KINDS)
def folders(request, make_model, tiny_tokenizer, tmp_path_factory) -> tuple[str, Path, Path]:
    """The architecture, a donor and its hybrid with two new mixers."""
    place = tmp_path_factory.mktemp(request.param)
    make_model(request.param).save_pretrained(place / "donor")
    tiny_tokenizer.save_pretrained(place / "donor")
    mixers = [{"layers": [1, 2], "kind": KINDS[request.param]}]
    build_hybrid(HybridRecipe.from_dict({"base": str(place / "donor"), "mixers": mixers}), place / "hybrid")
    return request.param, place / "donor", place / "hybrid"


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(f"The capital city of France is Paris, and {i} is a number. " * 6 for i in range(12)))
    return path


class Rows(Dataset):
    def __init__(self, padded: bool = False):
        generator = torch.Generator().manual_seed(1)
        self._rows = torch.randint(5, 300, (8, 12), generator=generator)
        self._padded = padded

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = self._rows[index]
        mask = torch.ones_like(ids)
        if self._padded:
            mask[: index % 4] = 0
        return {"input_ids": ids, "labels": ids, "attention_mask": mask}


def arguments(place: Path, **changes) -> TrainingArguments:
    settings = {"max_steps": 6, "learning_rate": 1e-2, "per_device_train_batch_size": 4, "report_to": "none"}
    settings |= {"save_strategy": "no", "per_device_eval_batch_size": 4, "use_cpu": True, "disable_tqdm": True}
    return TrainingArguments(str(place), **{**settings, **changes})


def models(folders) -> dict:
    _, donor, hybrid = folders
    load = AutoModelForCausalLM.from_pretrained
    return {"model": load(hybrid), "donor": load(donor)}


def test_only_the_new_mixers_train_in_stage_1_and_come_closer(folders, tmp_path):
    architecture = folders[0]
    trainer = MixerAlignmentTrainer(
        **models(folders), args=arguments(tmp_path), train_dataset=Rows(), eval_dataset=Rows()
    )
    before = {name: parameter.clone() for name, parameter in trainer.model.named_parameters()}
    loss = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < loss
    changed = {
        name for name, parameter in trainer.model.named_parameters() if not torch.equal(parameter, before[name])
    }
    expected = {name for name in before if f".{MIXERS[architecture]}." in name}
    assert changed == expected
    assert trainer.plan.strategy == "new-mixers"


@pytest.mark.parametrize("padded", [False, True])
def test_the_loss_of_stage_1_is_the_relative_error_on_the_donors_own_inputs(folders, tmp_path, padded):
    both, rows = models(folders), Rows(padded)
    trainer = MixerAlignmentTrainer(**both, args=arguments(tmp_path), train_dataset=rows, eval_dataset=rows)
    batch = {name: torch.stack([row[name] for row in (rows[i] for i in range(8))]) for name in rows[0]}
    hybrid, donor = both["model"].eval(), both["donor"].eval()
    losses = []
    with torch.no_grad():
        found = trainer.compute_loss(hybrid, batch).item()
        states = donor(
            batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True
        ).hidden_states
        for index in (1, 2):
            outputs = []
            handle = donor.model.layers[index].self_attn.register_forward_hook(
                lambda _, __, out, o=outputs: o.append(out[0])
            )
            donor(batch["input_ids"], attention_mask=batch["attention_mask"])
            handle.remove()
            given = donor.model.layers[index].input_layernorm(states[index])
            mask = batch["attention_mask"] if padded else None
            made = getattr(hybrid.model.layers[index], MIXERS[folders[0]])(given, attention_mask=mask)
            kept = batch["attention_mask"].bool()
            error, size = (made - outputs[0])[kept].double(), outputs[0][kept].double()
            losses.append((error.square().sum() / size.square().sum()).item())
    assert found == pytest.approx(sum(losses) / 2, rel=1e-4)


def test_stage_2_brings_the_logits_closer_and_trains_everything(folders, tmp_path):
    trainer = DonorDistillationTrainer(
        **models(folders),
        args=arguments(tmp_path, learning_rate=1e-4),
        mixer_learning_rate=1e-2,
        train_dataset=Rows(),
        eval_dataset=Rows(),
    )
    before = {name: parameter.clone() for name, parameter in trainer.model.named_parameters()}
    loss = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < loss
    changed = {
        name for name, parameter in trainer.model.named_parameters() if not torch.equal(parameter, before[name])
    }
    assert changed == set(before)
    rates = {group["initial_lr"] for group in trainer.optimizer.param_groups}
    assert rates == {1e-4, 1e-2}
    mixers = {id(p) for n, p in trainer.model.named_parameters() if f".{MIXERS[folders[0]]}." in n}
    fast = {id(p) for group in trainer.optimizer.param_groups if group["initial_lr"] == 1e-2 for p in group["params"]}
    assert fast == mixers
    assert not any(parameter.grad is not None for parameter in trainer.donor.parameters())


def test_the_divergence_of_a_model_from_itself_is_zero(folders, tmp_path):
    donor = AutoModelForCausalLM.from_pretrained(folders[1])
    trainer = DonorDistillationTrainer(model=models(folders)["model"], donor=donor, args=arguments(tmp_path))
    batch = {name: torch.stack([Rows()[i][name] for i in range(3)]) for name in Rows()[0]}
    assert trainer.compute_loss(donor, batch).item() == pytest.approx(0, abs=1e-6)


def test_a_healed_hybrid_says_what_was_done(folders, text, tmp_path):
    _, _, hybrid = folders
    config = HealingConfig(steps=4, distill_steps=3, sequence_length=16, batch_size=2)
    record = heal_hybrid(hybrid, [text], tmp_path / "healed", config)
    assert record == HybridRecord.load(tmp_path / "healed")
    assert [(done.stage, done.steps, done.tokens) for done in record.healings] == [
        ("alignment", 4, 128),
        ("distillation", 3, 96),
    ]
    assert all(done.loss_after < done.loss_before for done in record.healings)
    assert "healed on 224 tokens" in record.notes[-1]
    assert not any("untrained" in note for note in record.notes)
    _, info = AutoModelForCausalLM.from_pretrained(tmp_path / "healed", output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert (tmp_path / "healed" / "tokenizer.json").is_file()
    assert all(layer.verified.startswith("before healing: ") for layer in record.layers)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def digest(folder: Path, names: list[str]) -> str:
    """What a record says of some tensors of a folder, computed anew."""
    tensors = {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
    whole = hashlib.sha256()
    for name in sorted(names):
        whole.update(name.encode() + b"\0" + hashlib.sha256(tensors[name].contiguous().numpy().tobytes()).digest())
    return whole.hexdigest()


OUTSIDE = {"embeddings": "model.embed_tokens.weight", "norm": "model.norm.weight", "head": "lm_head.weight"}
DONE = Healing(stage="distillation", steps=1, tokens=96, learning_rate=1e-5, loss_before=1.0, loss_after=0.5)


def changed_copy(hybrid: Path, place: Path, parts: list[str] | None = None, **options) -> Path:
    """The hybrid with other weights in some modules, by default in all."""
    model = AutoModelForCausalLM.from_pretrained(hybrid)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parts is None or any(part in name for part in parts):
                parameter += 0.01
    model.save_pretrained(place, **options)
    return place


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "20KB"}])
def test_where_everything_moved_every_digest_is_that_of_the_healed_weights(folders, tmp_path, options):
    _, _, hybrid = folders
    record = HybridRecord.load(hybrid)
    after = changed_copy(hybrid, tmp_path / "after", **options)
    healed = _healed(record, hybrid, after, [DONE])
    parts = [part for part in OUTSIDE if getattr(record, part) is not None]
    assert {"embeddings", "norm"} <= set(parts)
    for part in parts:
        assert getattr(record, part).sha256 == digest(hybrid, [OUTSIDE[part]])
        assert getattr(healed, part).sha256 == digest(after, [OUTSIDE[part]]) != getattr(record, part).sha256
        assert getattr(healed, part).donor == getattr(record, part).donor
    for index, (old, new) in enumerate(zip(record.layers, healed.layers, strict=True)):
        names = [n for n in AutoModelForCausalLM.from_pretrained(after).state_dict() if f".layers.{index}." in n]
        assert new.sha256 == digest(after, names) != old.sha256
    changed = f"Changed by healing, and no longer the donor's: {', '.join(parts)}."
    assert healed.notes == [changed, "Its new token mixers were healed on 96 tokens."]

    # Healed again, in the mixers alone: what was said still holds, and is said once.
    again = changed_copy(after, tmp_path / "again", [f".{MIXERS[folders[0]]}."])
    twice = _healed(healed, after, again, [DONE, DONE])
    assert twice.notes == [changed, "Its new token mixers were healed on 192 tokens."]
    assert twice.embeddings == healed.embeddings


def test_what_healing_left_alone_keeps_its_digest(folders, tmp_path):
    _, _, hybrid = folders
    record = HybridRecord.load(hybrid)
    after = changed_copy(hybrid, tmp_path / "after", [f".{MIXERS[folders[0]]}."])
    healed = _healed(record, hybrid, after, [DONE])
    assert (healed.embeddings, healed.norm, healed.head) == (record.embeddings, record.norm, record.head)
    assert healed.notes == ["Its new token mixers were healed on 96 tokens."]
    kept = [ours == theirs for ours, theirs in zip(record.layers, healed.layers, strict=True)]
    assert kept == [True, False, False, True]


@pytest.mark.parametrize("folders", ["Llama"], indirect=True)
def test_what_another_healing_left_is_not_taken_up(folders, text, tmp_path, monkeypatch):
    _, donor, hybrid = folders
    config, work = HealingConfig(steps=4, sequence_length=16, batch_size=2), tmp_path / ".out.healing"
    seen = []

    def stop(stage, steps, model, donor_model, blocks, place, settings):
        seen.append((place / "loss_before.txt").exists())
        place.mkdir(exist_ok=True)
        (place / "loss_before.txt").write_text("1.0")
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_layertracer.hybrid.healing.heal._stage", stop)

    def heal(settings: HealingConfig = config, **options) -> bool:
        """Whether this healing found what the last one left."""
        with pytest.raises(KeyboardInterrupt):
            heal_hybrid(hybrid, [text], tmp_path / "out", settings, **options)
        assert (work / "key.txt").is_file()
        return seen[-1]

    assert not heal()
    assert heal()
    assert heal(replace(config, save_steps=7)), "how often it is saved changes no result"
    assert not heal(replace(config, learning_rate=1e-2))
    assert not heal()
    assert not heal(donor=donor)
    assert not heal()
    text.write_text(text.read_text() * 2)
    assert not heal()
    record = HybridRecord.load(hybrid)
    layers = [record.layers[0].model_copy(update={"sha256": "0" * 64}), *record.layers[1:]]
    monkeypatch.setattr(HybridRecord, "load", lambda _: record.model_copy(update={"layers": layers}))
    assert not heal()
    (work / "key.txt").unlink()  # as versions left it that wrote none
    assert not heal()


_KILLED = """
import os, signal, sys
from transformers import TrainerCallback
from hf_layertracer.hybrid.healing import trainers
from hf_layertracer.hybrid.healing.config import HealingConfig
from hf_layertracer.hybrid.healing.heal import heal_hybrid

class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3 and args.output_dir.endswith("distillation"):
            os.kill(os.getpid(), signal.SIGKILL)

begin = trainers.DonorDistillationTrainer.__init__
def with_kill(self, *args, **kwargs):
    begin(self, *args, **kwargs)
    self.add_callback(Kill())
trainers.DonorDistillationTrainer.__init__ = with_kill
settings = HealingConfig(steps=4, distill_steps=4, sequence_length=16, batch_size=2, save_steps=2)
heal_hybrid(sys.argv[1], [sys.argv[2]], sys.argv[3], settings)
"""


@pytest.mark.slow
@pytest.mark.parametrize("folders", ["Llama"], indirect=True)
def test_a_killed_healing_goes_on_where_it_was_and_two_processes_do_what_one_does(folders, text, tmp_path):
    _, _, hybrid = folders
    config = HealingConfig(steps=4, distill_steps=4, sequence_length=16, batch_size=2, save_steps=2)
    whole = heal_hybrid(hybrid, [text], tmp_path / "whole", config)

    killed = [sys.executable, "-c", _KILLED, str(hybrid), str(text), str(tmp_path / "again")]
    done = subprocess.run(killed, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert not (tmp_path / "again").exists()
    resumed = heal_hybrid(hybrid, [text], tmp_path / "again", config)
    assert_same_healings(whole, resumed)

    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "hf_layertracer.cli"]
    options = ["--steps", "4", "--distill-steps", "4", "--sequence-length", "16", "--batch-size", "1"]
    both = ["hybrid", "heal", str(hybrid), "--data", str(text), "--out", str(tmp_path / "both"), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launch, *both], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # The loss of stage 1 is a ratio of sums over a batch: two halves of a batch average two ratios.
    assert_same_healings(whole, HybridRecord.load(tmp_path / "both"), rel=0.03)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("folders", ["Llama"], indirect=True)
def test_sharded_parameters_heal_as_whole_ones_do(folders):
    _, _, hybrid = folders
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    script = str(Path(__file__).parent / "scripts" / "heal_sharded.py")
    done = subprocess.run(
        [sys.executable, *launch, script, str(hybrid.parent)],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for stage in ("alignment", "distillation"):
        whole, sharded = (torch.load(hybrid.parent / f"{kind}-{stage}.pt") for kind in ("ddp", "fsdp2"))
        assert (whole["sharded"], sharded["sharded"]) == (False, True)
        assert sharded["losses"] == pytest.approx(whole["losses"], rel=1e-3)
        for name, parameter in whole["mixers"].items():
            assert torch.allclose(parameter, sharded["mixers"][name], rtol=1e-3, atol=1e-4), name


def assert_same_healings(one: HybridRecord, other: HybridRecord, rel: float = 1e-4) -> None:
    for ours, theirs in zip(one.healings, other.healings, strict=True):
        assert (ours.steps, ours.tokens) == (theirs.steps, theirs.tokens)
        assert ours.loss_before == pytest.approx(theirs.loss_before, rel=rel)
        assert ours.loss_after == pytest.approx(theirs.loss_after, rel=rel)


def test_what_cannot_be_healed_is_refused(folders, donors, recipe, text, tmp_path):
    a, _ = donors
    build_hybrid(recipe(base=a), tmp_path / "whole")
    with pytest.raises(LayerTracerError, match="No token mixer of this model is new"):
        heal_hybrid(tmp_path / "whole", [text], tmp_path / "out")
    with pytest.raises(LayerTracerError, match="for no steps"):
        HealingConfig(steps=0)
    (tmp_path / "short.txt").write_text("Rome.")
    with pytest.raises(LayerTracerError, match=r"^files: .*short\.txt has fewer than the 16 tokens of one block"):
        heal_hybrid(folders[2], [tmp_path / "short.txt"], tmp_path / "out", HealingConfig(sequence_length=16))
    with pytest.raises(LayerTracerError, match="is not an empty folder"):
        heal_hybrid(folders[2], [text], tmp_path / "whole")


def test_a_launch_that_shards_is_told_what_to_do(folders, text, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(LayerTracerError, match="runs under DDP"):
        heal_hybrid(folders[2], [text], tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_the_plan_of_a_hybrid_trains_the_new_mixers_and_no_other_model_has_one(folders, make_model):
    model = AutoModelForCausalLM.from_pretrained(folders[2])
    plan = make_plan(model, "new-mixers")
    assert plan.trained_layers == [1, 2]
    assert not plan.train_embeddings
    assert not plan.train_norm
    assert not plan.train_head
    assert f"{MIXERS[folders[0]]} in 2 of 4 layers" in plan.reason
    size = sum(p.numel() for n, p in model.named_parameters() if f".{MIXERS[folders[0]]}." in n)
    assert plan.savings.trainable_parameters == size
    for other in ("Llama", "Mamba"):
        with pytest.raises(LayerTracerError, match="is for hybrids"):
            make_plan(make_model(other), "new-mixers")
