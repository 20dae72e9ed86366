"""What cannot be built is refused with one clear message, and nothing is left on the disk."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from threading import Event

import pytest
import torch
from safetensors.torch import load, save_file
from support.processes import kill_when
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from hf_layertracer import LayerTracerError, build_hybrid
from hf_layertracer.errors import IncompatibleDonorsError


def tensors_of(file: Path) -> dict[str, torch.Tensor]:
    """A file's tensors in their own memory, as the file may be written over."""
    return load(file.read_bytes())


@pytest.fixture
def refused(tmp_path):
    """`refused(recipe, message)`: the build fails so, and leaves nothing behind."""

    def check(recipe, message: str, kind: type[LayerTracerError] = LayerTracerError) -> str:
        before = set(tmp_path.rglob("*"))
        with pytest.raises(kind, match=message) as caught:
            build_hybrid(recipe, tmp_path / "deep" / "out")
        assert set(tmp_path.rglob("*")) == before
        return str(caught.value)

    return check


def test_layers_that_a_donor_does_not_have(donors, recipe, refused):
    a, b = donors
    refused(
        recipe(base=a, layers=[(a, 0, 2), (b, 2, 5)]), r"layers\[1\].layer_range: \[2, 5\] goes beyond the 4 layers"
    )


def test_a_donor_that_is_nowhere(donors, recipe, refused, hub):
    refused(recipe(base="./nowhere"), "No such folder: ./nowhere")
    refused(recipe(base="alice/nowhere"), "'alice/nowhere' does not exist")
    refused(recipe(base=donors[0], layers=[("/no/such/folder", 0, 1)]), "No such folder")


def test_a_folder_without_a_model(tmp_path, recipe, refused):
    (tmp_path / "empty").mkdir()
    refused(recipe(base=str(tmp_path / "empty")), "there is no config.json")


def test_weights_in_pickles_get_the_command_that_converts_them(donors, recipe, refused, tmp_path):
    a = Path(donors[0])
    (a / "model.safetensors").rename(a / "pytorch_model.bin")
    message = refused(recipe(base=str(a)), "pickles, which can run code")
    command = message[message.index("python -c") :]
    # The command does what it says: real pickles become safetensors.
    state = tensors_of(a / "pytorch_model.bin")
    torch.save(state, a / "pytorch_model.bin")
    done = subprocess.run(
        command.replace("python", sys.executable, 1),
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert torch.equal(
        tensors_of(tmp_path / "converted" / "model.safetensors")["model.norm.weight"], state["model.norm.weight"]
    )


def test_a_donor_without_weights(donors, recipe, refused):
    (Path(donors[0]) / "model.safetensors").unlink()
    refused(recipe(base=donors[0]), "has no weights")


def test_a_shard_that_is_cut_short_or_lacks_a_tensor_is_named(donors, recipe, refused, tmp_path, make_model):
    make_model("Llama").save_pretrained(tmp_path / "s", max_shard_size="20KB")
    shard = sorted((tmp_path / "s").glob("*.safetensors"))[1]
    data = shard.read_bytes()
    shard.write_bytes(data[:-10])
    refused(recipe(base=str(tmp_path / "s")), f"{shard.name} is cut short")
    shard.unlink()
    refused(recipe(base=str(tmp_path / "s")), f"Could not read .*{shard.name}")
    save_file({"x": torch.zeros(1)}, shard)
    refused(recipe(base=str(tmp_path / "s")), f"{shard.name} lacks 'model")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"hidden_size": 16}, "hidden_size"),
        ({"num_attention_heads": 2}, "num_attention_heads"),
        ({"num_key_value_heads": 4}, "num_key_value_heads"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"rms_norm_eps": 0.1}, "rms_norm_eps"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}}, "rope_parameters"),
    ],
)
def test_donors_that_do_not_fit_are_refused_with_a_table(donors, save_donor, recipe, refused, changes, field):
    other = save_donor("other", **changes)
    message = refused(recipe(base=donors[0], layers=[(other, 0, 2)]), "do not fit", IncompatibleDonorsError)
    rows = message.splitlines()
    assert rows[1].split() == ["donor", "differs", "in", "expected", "has", "what", "would", "allow", "it"]
    assert any(other in row and field in row for row in rows[2:])


def test_another_architecture_is_refused(donors, save_donor, recipe, refused):
    other = save_donor("other", "Qwen3")
    assert "model_type" in refused(
        recipe(base=donors[0], layers=[(other, 0, 2)]), "do not fit", IncompatibleDonorsError
    )


def test_another_vocabulary_is_refused_and_the_option_that_allows_it_does(
    donors, save_donor, recipe, refused, tmp_path
):
    a, _ = donors
    other = save_donor("other", vocab_size=400, seed=3)
    message = refused(recipe(base=a, head=other), "do not fit", IncompatibleDonorsError)
    assert f"`head: {a}`" in message
    build_hybrid(recipe(base=a, layers=[(other, 0, 2)], head=a), tmp_path / "h")
    build_hybrid(recipe(base=a, embeddings=other, head=other), tmp_path / "h2")
    assert tensors_of(tmp_path / "h2" / "model.safetensors")["lm_head.weight"].shape[0] == 400


def test_another_tokenizer_than_the_embeddings_is_refused(donors, recipe, refused):
    a, b = donors
    file = Path(b) / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(content))
    message = refused(recipe(base=a, tokenizer=b), "do not fit", IncompatibleDonorsError)
    assert "2 other" in message
    assert f"`tokenizer: {a}`" in message


def test_data_types_that_differ_need_a_word(donors, save_donor, recipe, refused, make_model, tmp_path):
    make_model("Llama").bfloat16().save_pretrained(tmp_path / "half")
    half = str(tmp_path / "half")
    refused(recipe(base=donors[0], layers=[(half, 0, 2)]), "different data types .*Name the hybrid's with `dtype:`")
    build_hybrid(recipe(base=donors[0], layers=[(half, 0, 2)], dtype="float32"), tmp_path / "h")


def test_a_quantized_donor_is_refused(donors, recipe, refused):
    config = Path(donors[0]) / "config.json"
    content = json.loads(config.read_text())
    content["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    config.write_text(json.dumps(content))
    refused(recipe(base=donors[0]), "is quantized")


def test_an_output_that_is_there_is_not_touched(donors, recipe, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, message in (("full", "is not empty"), ("file", "is a file")):
        with pytest.raises(LayerTracerError, match=message):
            build_hybrid(recipe(base=donors[0]), tmp_path / name)
    assert (tmp_path / "full" / "mine.txt").read_text() == (tmp_path / "file").read_text() == "mine"
    (tmp_path / "nothing").mkdir()
    build_hybrid(recipe(base=donors[0]), tmp_path / "nothing")
    assert (tmp_path / "nothing" / "config.json").is_file()


def test_a_layer_that_computes_something_else_fails_the_build(donors, recipe, refused, monkeypatch):
    from hf_layertracer.hybrid import weights

    real = weights.NewTensor.copy.__func__

    def broken(cls, name, source, dtype=None):
        if name == "model.layers.2.mlp.up_proj.weight":
            return cls(name, source.dtype, source.shape, (source,), lambda tensor: tensor + 1e-3)
        return real(cls, name, source, dtype)

    monkeypatch.setattr(weights.NewTensor, "copy", classmethod(broken))
    refused(recipe(base=donors[0]), "Layer 2 does not compute what layer 2 of")


def test_a_tensor_that_is_missing_fails_the_build(donors, recipe, refused):
    file = Path(donors[0]) / "model.safetensors"
    tensors = tensors_of(file)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, file, {"format": "pt"})
    refused(recipe(base=donors[0]), r"missing keys: model\.layers\.1\.mlp\.up_proj\.weight")


_SMALL_DISK = """
import shutil, sys
from hf_layertracer import LayerTracerError
from hf_layertracer.hybrid.build import build_hybrid
# What a disk says of itself may be out of date by the time that it is written to.
shutil.disk_usage = lambda _: shutil._ntuple_diskusage(10**12, 0, 10**12)
try:
    build_hybrid(sys.argv[1], sys.argv[2])
except LayerTracerError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root may mount a disk")
def test_a_disk_that_fills_up_in_the_middle_leaves_nothing(donors, recipe, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        recipe(base=donors[0]).save(tmp_path / "r.yaml")
        command = [sys.executable, "-c", _SMALL_DISK, str(tmp_path / "r.yaml"), str(disk / "out")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "No space left on device. Nothing was left there." in done.stdout
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_write_that_the_system_refuses_in_the_middle_leaves_nothing(donors, recipe, refused):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        refused(recipe(base=donors[0]), "File too large. Nothing was left")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_donors_stop_running_when_writing_fails(donors, recipe, refused, monkeypatch):
    from hf_layertracer.hybrid import whole

    ran, running, failing = [], Event(), Event()
    real = LlamaDecoderLayer.forward

    def forward(layer, *args, **kwargs):
        ran.append(layer)
        running.set()
        failing.wait(30)
        time.sleep(0.5)
        return real(layer, *args, **kwargs)

    def write_tensors(*_):
        running.wait(30)
        failing.set()
        raise OSError(errno.EIO, "the disk is gone")

    monkeypatch.setattr(LlamaDecoderLayer, "forward", forward)
    monkeypatch.setattr(whole, "write_tensors", write_tensors)
    refused(recipe(base=donors[0]), "the disk is gone. Nothing was left")
    assert len(ran) == 1


def test_a_disk_that_is_too_small_is_noticed_before(donors, recipe, refused, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    refused(recipe(base=donors[0]), "and 0.0 GB are free")


_SLOW_BUILD = """
import sys, time
from hf_layertracer.hybrid import safetensors_io
from hf_layertracer.hybrid.build import build_hybrid
real = safetensors_io._copy
def slow(source, file):
    real(source, file)
    time.sleep(0.2)
safetensors_io._copy = slow
build_hybrid(sys.argv[1], sys.argv[2])
"""


def test_a_killed_build_leaves_no_hybrid_and_the_next_one_clears_up(donors, recipe, tmp_path):
    (tmp_path / "place").mkdir()
    out = tmp_path / "place" / "out"
    recipe(base=donors[0]).save(tmp_path / "r.yaml")
    process = subprocess.Popen([sys.executable, "-c", _SLOW_BUILD, tmp_path / "r.yaml", out])
    kill_when(process, lambda: list((tmp_path / "place").glob(".out.*/*.safetensors")))
    assert not out.exists()
    assert list((tmp_path / "place").iterdir())
    build_hybrid(tmp_path / "r.yaml", out)
    assert [path.name for path in (tmp_path / "place").iterdir()] == ["out"]
