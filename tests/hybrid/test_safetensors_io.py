from __future__ import annotations

import errno
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from hf_layertracer import LayerTracerError
from hf_layertracer.hybrid.safetensors_io import DTYPES, NewTensor, read_header, split_into_files, write_file


@pytest.fixture
def stored(tmp_path):
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"t.{name}": (torch.randn(3, 5, generator=generator) * 3).to(dtype)
        for name, dtype in DTYPES.items()
        if dtype.is_floating_point or dtype == torch.int64
    }
    tensors |= {"empty": torch.empty(0, 4), "scalar": torch.tensor(2.5), "flags": torch.tensor([True, False])}
    save_file(tensors, tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors", tensors


def test_every_data_type_is_read_as_the_formats_own_library_reads_it(stored):
    file, tensors = stored
    found = read_header(file)
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        loaded = found[name].load()
        assert loaded.dtype == tensor.dtype
        assert loaded.shape == tensor.shape
        assert loaded.flatten().view(torch.uint8).tolist() == tensor.flatten().view(torch.uint8).tolist()


@pytest.mark.parametrize("in_kernel", [True, False])
def test_a_copy_is_read_back_to_the_bit_by_the_formats_own_library(stored, tmp_path, monkeypatch, in_kernel):
    if not in_kernel:

        def refuse(*_):
            raise OSError(errno.EXDEV, "Invalid cross-device link")

        monkeypatch.setattr("os.copy_file_range", refuse)
    file, tensors = stored
    copies = [NewTensor.copy(f"new.{name}", tensor) for name, tensor in read_header(file).items()]
    write_file(tmp_path / "b.safetensors", copies)
    back = load_file(tmp_path / "b.safetensors")
    assert set(back) == {f"new.{name}" for name in tensors}
    for name, tensor in tensors.items():
        assert back[f"new.{name}"].shape == tensor.shape
        assert back[f"new.{name}"].flatten().view(torch.uint8).tolist() == tensor.flatten().view(torch.uint8).tolist()


def test_another_data_type_is_what_torch_makes_of_it_and_integers_stay(stored, tmp_path):
    file, tensors = stored
    found = read_header(file)
    made = [NewTensor.copy(name, found[name], torch.bfloat16) for name in ("t.F32", "t.I64")]
    write_file(tmp_path / "b.safetensors", made)
    back = load_file(tmp_path / "b.safetensors")
    assert torch.equal(back["t.F32"], tensors["t.F32"].bfloat16())
    assert torch.equal(back["t.I64"], tensors["t.I64"])


@pytest.mark.parametrize("kept", [0, 5, 60, -1])
def test_a_file_that_is_cut_short_is_named(stored, kept):
    file, _ = stored
    data = file.read_bytes()
    file.write_bytes(data[: kept if kept >= 0 else len(data) - 1])
    with pytest.raises(LayerTracerError, match=r"a\.safetensors is cut short"):
        read_header(file)


def test_a_file_that_is_too_long_is_named(stored):
    file, _ = stored
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(LayerTracerError, match=r"a\.safetensors is corrupt"):
        read_header(file)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1]},
        7,
    ],
)
def test_a_header_that_contradicts_itself_is_named(tmp_path, entry):
    header = json.dumps({"t": entry}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    with pytest.raises(LayerTracerError, match=r"a\.safetensors is corrupt"):
        read_header(tmp_path / "a.safetensors")


def test_a_tensor_that_shrinks_while_it_is_read_is_named(stored):
    file, _ = stored
    found = read_header(file)
    last = max((tensor for tensor in found.values()), key=lambda tensor: tensor.offset + tensor.nbytes)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(LayerTracerError, match="changed while it was read"):
        last.load()
    with pytest.raises(LayerTracerError, match="changed while it was read"):
        write_file(file.parent / "b.safetensors", [NewTensor.copy("copy", last)])


@given(st.lists(st.integers(0, 12), max_size=12), st.integers(1, 30))
def test_files_are_filled_in_order_and_none_is_too_large_but_for_one_tensor(sizes, largest):
    tensors = [NewTensor(str(i), torch.uint8, (size,)) for i, size in enumerate(sizes)]
    files = split_into_files(tensors, largest)
    assert [tensor for file in files for tensor in file] == tensors
    for file in files:
        assert sum(tensor.nbytes for tensor in file) <= largest or sum(tensor.nbytes > 0 for tensor in file) == 1
