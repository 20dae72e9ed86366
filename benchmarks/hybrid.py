"""Building a hybrid against copying the same bytes and against mergekit's passthrough, and its memory by model size.

mergekit runs in a virtual environment of its own, which is made on the first run; it borrows torch and transformers from
this one. Set `MERGEKIT_PYTHON` to use another.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
import yaml
from huggingface_hub import cached_assets_path
from transformers import LlamaConfig, LlamaForCausalLM


SIZES_GB = (1, 2, 4)
ROUNDS = 3
_HIDDEN, _INNER, _VOCABULARY = 2048, 5632, 32000
_MERGEKIT = ("mergekit==0.1.5", "immutables", "click", "sentencepiece", "protobuf")
_BUILD = """
import sys
from hf_layertracer.hybrid.build import build_hybrid
build_hybrid(sys.argv[1], sys.argv[2])
"""
_BUILD_ALONE = """
from hf_layertracer.hybrid import whole
whole.donor_outputs, whole.verify_layers = lambda *_: [], lambda *_: None
"""


def run() -> list[tuple[str, str]]:
    """Builds models of several sizes; every figure compares ways in one run.

    Returns:
        `list[tuple[str, str]]`: Rows of the results.
    """
    mergekit = mergekit_python()
    peaks, rows = {}, []
    with tempfile.TemporaryDirectory(prefix="layertracer-bench-") as place:
        folder = Path(place)
        for size in SIZES_GB:
            # In its own process: what a process holds when it starts another counts as the other's peak.
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                recipe, elements = pool.submit(make_model, folder / "model", size).result()
            (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
            build, alone = (
                [sys.executable, "-c", code, str(folder / "recipe.yaml"), str(folder / "out")]
                for code in (_BUILD, _BUILD_ALONE + _BUILD)
            )
            merge = [mergekit, "-m", "mergekit.scripts.run_yaml", str(folder / "recipe.yaml"), str(folder / "out")]
            copy = ["cp", "-r", str(folder / "model"), str(folder / "out")]
            ways, rounds = {"cp": copy, "build": build, "alone": alone, "mergekit": merge}, ROUNDS
            if size != SIZES_GB[-1]:  # of the smaller ones, only the builder's memory is asked
                ways, rounds = {"build": build}, 1
            imports = [sys.executable, "-c", "import hf_layertracer.hybrid.build"]
            measured = {name: [] for name in ways}
            for _ in range(rounds):
                for name, command in ways.items():
                    measured[name].append(measure(command, folder / "out"))
            base = measure(imports, folder / "out")[2]
            best, on_disk = ({name: min(v[i] for v in values) for name, values in measured.items()} for i in (0, 1))
            peak = {name: max(memory for *_, memory in values) for name, values in measured.items()}
            peaks[size] = (peak["build"] - base) / 2**30
            shutil.rmtree(folder / "model")
        largest = elements * 2 / 2**30
        throughput = f"throughput, build with verification / cp, {size} GB"
        rows.append((throughput, f"{best['cp'] / best['build']:.2f}"))
        rows.append((f"{throughput}, until all is on the disk", f"{on_disk['cp'] / on_disk['build']:.2f}"))
        rows.append(
            (f"time, build with verification / mergekit, {size} GB", f"{best['build'] / best['mergekit']:.2f}")
        )
        rows.append(
            (f"time, build without verification / mergekit, {size} GB", f"{best['alone'] / best['mergekit']:.2f}")
        )
        rows.append((f"peak memory, build / mergekit, {size} GB", f"{peak['build'] / peak['mergekit']:.2f}"))
    steps = ", ".join(map(str, SIZES_GB))
    rows.append(
        (
            f"peak memory beyond the imports, models of {steps} GB (largest tensor {largest:.2f} GiB)",
            ", ".join(f"{peak:.2f} GiB" for peak in peaks.values()),
        )
    )
    return rows


def make_model(folder: Path, gigabytes: float) -> tuple[dict, int]:
    """Writes a random Llama of a size, and a passthrough recipe that both builders read.

    Args:
        folder (`Path`): Where the model goes.
        gigabytes (`float`): Its size in bfloat16.

    Returns:
        `tuple[dict, int]`: The recipe, and how many numbers the largest tensor has.
    """
    layer = 4 * _HIDDEN * _HIDDEN + 3 * _HIDDEN * _INNER
    layers = round((gigabytes * 1e9 / 2 - 2 * _VOCABULARY * _HIDDEN) / layer)
    config = LlamaConfig(
        vocab_size=_VOCABULARY,
        hidden_size=_HIDDEN,
        intermediate_size=_INNER,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=16,
        dtype="bfloat16",
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config).bfloat16()
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.random_(0, 2, generator=generator).mul_(0.02)
    model.save_pretrained(folder, max_shard_size="2GB")
    half = layers // 2
    ranges = ([0, half], [half, layers])
    slices = [{"sources": [{"model": str(folder), "layer_range": span}]} for span in ranges]
    return {"slices": slices, "merge_method": "passthrough", "dtype": "bfloat16"}, _VOCABULARY * _HIDDEN


def measure(command: list[str], out: Path) -> tuple[float, float, int]:
    """Runs a command alone, with all earlier writing done.

    Args:
        command (`list[str]`): The command.
        out (`Path`): What it writes, removed before and after.

    Returns:
        `tuple[float, float, int]`: Seconds; seconds until what it wrote is on the disk; its peak resident memory in bytes.
    """
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    os.sync()
    on_disk = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command[:4]} failed with {process.returncode}.")
    shutil.rmtree(out, ignore_errors=True)
    return seconds, on_disk, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def mergekit_python() -> str:
    """The interpreter of an environment with mergekit, which is made if need be."""
    if named := os.environ.get("MERGEKIT_PYTHON"):
        return named
    home = Path(cached_assets_path("hf_layertracer", namespace="benchmarks", subfolder="mergekit"))
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *_MERGEKIT], check=True)
        site = subprocess.run(
            [python, "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True, check=True
        ).stdout.strip()
        Path(site, "borrowed.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    return str(python)
