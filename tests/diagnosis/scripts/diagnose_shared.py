"""One of several processes that diagnose together: `torchrun diagnose_shared.py FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import distributed
from transformers import AutoModelForCausalLM

from hf_layertracer import DiagnosisConfig, Probe, diagnose
from hf_layertracer.diagnosis.measurements.answers import Answers
from hf_layertracer.errors import LayerTracerError


PROBES = [Probe(tuple(range(5 + number, 9 + number + number % 2)), number) for number in range(7)]
CONFIG = DiagnosisConfig(perturbation="mask,skip", repeats=3)


def main(folder: Path) -> None:
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    rows: list[int] = []
    hook = model.model.layers[1].mlp.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    report = diagnose(model, PROBES, config=CONFIG)
    hook.remove()
    # Of processes that ask different things, each measures its own.
    other = diagnose(model, PROBES[: 3 + rank], config=DiagnosisConfig(perturbation="skip"))
    # An error of one process is told by all.
    if rank == 1:

        def fail(*_: object) -> None:
            raise KeyError("deliberate")

        Answers.observe = fail  # type: ignore[method-assign, assignment]
    try:
        diagnose(model, PROBES, config=CONFIG)
        said = ""
    except (KeyError, LayerTracerError) as error:
        said = str(error)
    seen = {"report": report.model_dump(mode="json"), "rows": sum(rows), "other": other.probes.count, "said": said}
    (folder / f"rank{rank}.json").write_text(json.dumps(seen))
    distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
