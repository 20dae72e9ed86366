"""What is lost when Mamba2 replaces attention in some layers of a model, and does it matter in which?

Two experiments, in units of one file each: run the command again after an interruption, and it goes on where it was.

1. Mixers: the same number of attentions is replaced in the shallow half, in the deep half, spread evenly, where the model
   is least sensitive to a mask, and where it is least sensitive to the loss of the mixer. What the model knows is
   measured before healing, after stage 1 (alignment) and after stage 2 (distillation), with the same tokens for all.
2. Donors: the model and a fine-tuned one share the layers, the shallow half of one below the deep half of the other.

python hybrid_case_study.py --heal docs.train.txt --held-out docs.held_out.txt --other handbook.txt --out study
python hybrid_case_study_page.py study --page hybrid-case-study.md
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, Trainer, TrainingArguments

from hf_layertracer import (
    DiagnosisConfig,
    HybridRecipe,
    LayerTracerReport,
    build_hybrid,
    diagnose,
    load_probes,
    propose_hybrid,
)
from hf_layertracer.demo.model import demo_model
from hf_layertracer.evaluation import EvaluationConfig, evaluate_model
from hf_layertracer.files import write_atomically
from hf_layertracer.hybrid.healing.trainers import DonorDistillationTrainer, MixerAlignmentTrainer
from hf_layertracer.trials.data import Blocks, write_blocks


ARMS = ("shallow half", "deep half", "spread", "mask sensitivity", "mixer sensitivity")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder or id of a Llama; the demo's SmolLM2-135M-Instruct by default")
    parser.add_argument("--heal", required=True, help="text to heal and to fine-tune on")
    parser.add_argument("--held-out", required=True, help="text of the same kind that is not trained on")
    parser.add_argument("--other", required=True, help="text of another kind")
    parser.add_argument(
        "--tasks", nargs="*", default=[], help="JSONL files of multiple choice or minimal pairs; FILE:COUNT takes some"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs="+", default=[5, 10], help="how many attentions are replaced")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the order of the data")
    parser.add_argument("--steps", type=int, default=32, help="of stage 1, and of fine-tuning")
    parser.add_argument("--distill-steps", type=int, default=8, help="of stage 2")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--length", type=int, default=128, help="tokens of a sequence")
    parser.add_argument("--blocks", type=int, default=6, help="blocks of 256 tokens of each text to score")
    parser.add_argument("--max-probes", type=int, default=24, help="probes of the diagnosis")
    settings = parser.parse_args()
    settings.model = settings.model or str(demo_model())
    return settings


class Study:
    """The units of the study, and what they share."""

    def __init__(self, settings: argparse.Namespace):
        self.settings, self.out = settings, settings.out
        self.tokenizer = AutoTokenizer.from_pretrained(settings.model)
        self.texts = EvaluationConfig(
            new=[settings.held_out], old=[settings.other], limit=settings.blocks, sequence_length=256
        )
        self.tasks = [str(self._thinned(*task.partition(":")[::2])) for task in settings.tasks]
        self.blocks = self.out / "blocks.npy"
        if not self.blocks.exists():
            write_blocks([settings.heal], self.tokenizer, settings.length, self.blocks)

    def _thinned(self, file: str, limit: str) -> Path:
        """Some questions of a task, evenly over its file: the first ones may all be of one kind."""
        lines = Path(file).read_text(encoding="utf-8").splitlines(keepends=True)
        count = min(int(limit or len(lines)), len(lines))
        place = self.out / "tasks" / Path(file).name
        write_atomically(place, "".join(lines[i * len(lines) // count] for i in range(count)).encode())
        return place

    def unit(self, name: str, run: Callable[[], dict], **facts: object) -> None:
        """Runs a unit and writes what came of it, unless that is there already."""
        place = self.out / "units" / f"{name.replace(' ', '-')}.json"
        if place.exists():
            return
        started = time.perf_counter()
        result = {**facts, **run()}
        result["seconds"] = round(time.perf_counter() - started, 1)
        write_atomically(place, (json.dumps(result, indent=1) + "\n").encode())
        print(f"{time.strftime('%H:%M:%S')} {name}: {result['seconds']} s", flush=True)

    def known(self, model: PreTrainedModel) -> dict:
        """What a model knows; it is put into bfloat16, in which a CPU is twice as fast."""
        model = model.to(torch.bfloat16).eval()
        result = evaluate_model(model, self.tokenizer, self.texts)
        if self.tasks:
            asked = evaluate_model(model, self.tokenizer, EvaluationConfig(probes=None, tasks=self.tasks))
            result.metrics |= asked.metrics
            result.items += asked.items
        return {"metrics": result.metrics, "items": result.items}

    def training(self, steps: int, rate: float, seed: int, **changes: object) -> TrainingArguments:
        return TrainingArguments(
            str(self.out / "trainer"),
            max_steps=steps,
            per_device_train_batch_size=self.settings.batch_size,
            learning_rate=rate,
            lr_scheduler_type="cosine",
            warmup_steps=max(1, steps // 10),
            save_strategy="no",
            logging_steps=max(1, steps // 4),
            report_to="none",
            bf16=True,
            use_cpu=not torch.accelerator.is_available(),
            dataloader_pin_memory=torch.accelerator.is_available(),
            seed=seed,
            **changes,
        )

    def data(self, steps: int, seed: int) -> Blocks:
        return Blocks(self.blocks, steps * self.settings.batch_size, seed)


def main() -> None:
    study = Study(arguments())
    settings = study.settings
    study.unit("whole model", lambda: study.known(load(settings.model)), experiment="whole")
    layers = chosen_layers(study)
    for (arm, count), places in layers.items():
        study.unit(
            f"mixers {count} {arm} before", lambda p=places: study.known(load(hybrid(study, p))),
            experiment="mixers", arm=arm, count=count, layers=places, stage="before healing",
        )  # fmt: skip
    for seed in settings.seeds:
        for (arm, count), places in layers.items():
            heal(study, arm, count, places, seed, sorted(set().union(*layers.values())))
        mix_donors(study, seed)


def chosen_layers(study: Study) -> dict[tuple[str, int], list[int]]:
    """The layers of each arm at each count; what is measured first is measured once."""
    place = study.out / "report"
    if not (place / "layertracer_report.json").exists():
        model = load(study.settings.model).to(torch.bfloat16)
        probes = load_probes(tokenizer=study.tokenizer, max_probes=study.settings.max_probes)
        config = DiagnosisConfig(perturbation=["mask", "mixer"], repeats=1)
        diagnose(model, probes, tokenizer=study.tokenizer, config=config).save(place)
    report = LayerTracerReport.load(place)
    depth = report.num_layers
    half = depth // 2
    layers = {}
    for count in study.settings.counts:
        spans = {"shallow half": (0, half), "deep half": (half, depth), "spread": (0, depth)}
        for arm, (start, end) in spans.items():
            layers[arm, count] = [start + (2 * i + 1) * (end - start) // (2 * count) for i in range(count)]
        for by in ("mask", "mixer"):
            recipe = propose_hybrid(report, n_mixers=count, by=by, base=study.settings.model)
            layers[f"{by} sensitivity", count] = list(recipe.mixers[0].layers)
    return layers


def hybrid(study: Study, layers: list[int]) -> Path:
    """The folder of a hybrid with new mixers in some layers, built once."""
    place = study.out / "hybrids" / "-".join(map(str, layers))
    if not place.exists():
        mixers = [{"layers": layers, "kind": "mamba2"}]
        build_hybrid(HybridRecipe.from_dict({"base": study.settings.model, "mixers": mixers}), place)
    return place


def heal(study: Study, arm: str, count: int, layers: list[int], seed: int, every: list[int]) -> None:
    """Both stages of healing for one arm and seed."""
    facts = {"experiment": "mixers", "arm": arm, "count": count, "layers": layers, "seed": seed}

    def healed() -> PreTrainedModel:
        model = load(hybrid(study, layers))
        aligned = load_file(alignment(study, every, seed))
        own = dict(model.named_parameters())
        with torch.no_grad():
            for name in own.keys() & aligned.keys():
                own[name].copy_(aligned[name])
        return model

    def distilled() -> PreTrainedModel:
        steps = study.settings.distill_steps
        trainer = DonorDistillationTrainer(
            model=healed(),
            donor=load(study.settings.model),
            args=study.training(steps, 2e-5, seed),
            mixer_learning_rate=3e-4,
            # Blocks that stage 1 did not see.
            train_dataset=study.data(steps, 1000 + seed),
        )
        trainer.train()
        return trainer.model

    name = f"mixers {count} {arm} seed {seed}"
    study.unit(f"{name} stage 1", lambda: study.known(healed()), stage="after stage 1", **facts)
    study.unit(f"{name} stage 2", lambda: study.known(distilled()), stage="after stage 2", **facts)


def alignment(study: Study, layers: list[int], seed: int) -> Path:
    """The new mixers of all arms after stage 1.

    A mixer learns from the donor's own input at its layer, so no mixer sees another: each is trained once for all arms.
    That needs an optimizer that treats each parameter apart, and no clipping of the gradient's norm over all. It goes in
    two halves, as one hybrid has to keep an attention.
    """
    place = study.out / "aligned" / f"seed-{seed}.safetensors"
    if not place.exists():
        kept = {}
        for half in (layers[::2], layers[1::2]):
            trainer = MixerAlignmentTrainer(
                model=load(hybrid(study, half)),
                donor=load(study.settings.model),
                args=study.training(study.settings.steps, 1e-3, seed, max_grad_norm=0.0),
                train_dataset=study.data(study.settings.steps, seed),
            )
            trainer.train()
            kept |= {name: value.detach() for name, value in trainer.model.named_parameters() if value.requires_grad}
        place.parent.mkdir(exist_ok=True)
        save_file(kept, place.with_suffix(".unfinished"))
        os.replace(place.with_suffix(".unfinished"), place)
    return place


def mix_donors(study: Study, seed: int) -> None:
    """The model and a fine-tuned one, and both mixes of their halves; embeddings and head are the same in all four."""
    base, tuned = study.settings.model, study.out / "tuned" / f"seed-{seed}"

    def fine_tuned() -> dict:
        model = load(base)
        model.get_input_embeddings().requires_grad_(False)
        steps = study.settings.steps
        data = study.data(steps, seed)
        trainer = Trainer(model=model, args=study.training(steps, 1e-4, seed), train_dataset=data)
        trainer.train()
        model.save_pretrained(tuned)
        return study.known(model)

    facts = {"experiment": "donors", "seed": seed}
    study.unit(f"donors seed {seed} tuned", fine_tuned, **facts, arm="fine-tuned")
    for shallow, deep, arm in mixes(base, str(tuned)):
        study.unit(
            f"donors seed {seed} {arm}", lambda s=shallow, d=deep: study.known(load(mixed(study, base, s, d, seed))),
            **facts, arm=arm,
        )  # fmt: skip


def mixes(base: str, tuned: str) -> Iterator[tuple[str, str, str]]:
    yield base, tuned, "pre-trained below, fine-tuned above"
    yield tuned, base, "fine-tuned below, pre-trained above"


def mixed(study: Study, base: str, shallow: str, deep: str, seed: int) -> Path:
    depth = LayerTracerReport.load(study.out / "report").num_layers
    place = study.out / "hybrids" / f"{'base' if shallow == base else 'tuned'}-below-{seed}"
    if not place.exists():
        ranges = {shallow: [0, depth // 2], deep: [depth // 2, depth]}
        layers = [{"from": donor, "layer_range": span} for donor, span in ranges.items()]
        build_hybrid(HybridRecipe.from_dict({"base": base, "layers": layers, "norm": deep}), place)
    return place


def load(model: str | Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)


if __name__ == "__main__":
    main()
