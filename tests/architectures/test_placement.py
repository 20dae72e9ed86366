"""Models in narrow data types, compiled, offloaded and quantized are diagnosed like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from gguf import GGUFWriter
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

from hf_layertracer import DiagnosisConfig, LayerTracerConfig, LayerTracerTrainer, Probe, diagnose
from hf_layertracer.modeling import find_parts
from hf_layertracer.modeling.facts import elements, model_facts

from .tiny import tiny_config, tiny_model


PROBES = [Probe((5, 80, 31, 7, 40, 9), 10), Probe((33, 34, 21, 6), 17)]
QUICK = DiagnosisConfig(repeats=4, min_probability=1e-6)
ROWS = [{"input_ids": list(range(4, 16)), "labels": list(range(4, 16))}] * 2
CPU = torch.device("cpu")
PARTS = ("model.embed_tokens", "model.rotary_emb", *(f"model.layers.{i}" for i in range(4)), "model.norm", "lm_head")


@pytest.fixture
def model():
    config = tiny_config("llama")
    config.hidden_size, config.head_dim, config.intermediate_size = 64, 16, 128  # blocks of 64 are quantized at once
    return tiny_model(config)


@pytest.fixture
def expected(model):
    return diagnose(model, PROBES, config=QUICK)


# Weights at other addresses (offloaded, read from a file) may take other paths through a matrix product.
ROUNDING = 1e-6


def assert_alike(report, expected, tolerance=ROUNDING):
    assert report.sensitivity.path == "replay"
    assert report.lens.valid
    assert report.sensitivity.mean == pytest.approx(expected.sensitivity.mean, abs=tolerance)
    assert report.lens.mean_probability == pytest.approx(expected.lens.mean_probability, abs=tolerance)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_data_types_give_nearly_the_same(model, expected, dtype):
    report = diagnose(model.to(dtype), PROBES, config=QUICK)
    assert report.model.dtype == str(dtype).removeprefix("torch.")
    assert_alike(report, expected, 0.02)


def whole(model):
    return torch.compile(model, backend="eager")


def in_place(model):
    model.compile(backend="eager")
    return model


def regional(model):
    for layer in model.model.layers:
        layer.compile(backend="eager")
    return model


@pytest.mark.parametrize("compiled", [whole, in_place, regional])
def test_a_compiled_model_is_diagnosed_as_itself(model, expected, compiled):
    compiled = compiled(model)
    with torch.no_grad():
        before = compiled(input_ids=torch.tensor([[1, 2, 3]])).logits
    assert_alike(diagnose(compiled, PROBES, config=QUICK), expected)
    with torch.no_grad():
        assert torch.allclose(compiled(input_ids=torch.tensor([[1, 2, 3]])).logits, before, atol=1e-5)


def to_cpu(model, folder):
    return cpu_offload(model, execution_device=CPU, offload_buffers=True)


def to_disk(model, folder):
    disk_offload(model, folder, execution_device=CPU)
    return model


def some_to_disk(model, folder):
    places = {part: "disk" if number % 2 else "cpu" for number, part in enumerate(PARTS)}
    return dispatch_model(model, places, main_device="cpu", offload_dir=folder, force_hooks=True)


@pytest.mark.parametrize("offload", [to_cpu, to_disk, some_to_disk])
def test_an_offloaded_model_is_diagnosed_as_itself(model, expected, offload, tmp_path):
    model = offload(model, tmp_path)
    where = {name: parameter.device.type for name, parameter in model.named_parameters()}
    assert "meta" in where.values()
    report = diagnose(model, PROBES, config=QUICK)
    assert_alike(report, expected)
    assert report.plan == expected.plan
    assert {name: parameter.device.type for name, parameter in model.named_parameters()} == where


# -- quantized -------------------------------------------------------------------------------------------------------


def arguments(folder):
    return TrainingArguments(
        folder, max_steps=1, report_to="none", save_strategy="no", use_cpu=True, disable_tqdm=True, learning_rate=1e-2
    )


def assert_trained_as_transformers_does(model, folder):
    """Refused without adapters, in transformers' own words; with them, those of the trained layers alone train."""
    with pytest.raises(ValueError, match="fine-tuning on purely quantized models") as own:
        Trainer(model=model, args=arguments(folder), train_dataset=ROWS)
    with pytest.raises(ValueError, match="fine-tuning on purely quantized models") as ours:
        LayerTracerTrainer(model=model, args=arguments(folder), train_dataset=ROWS, probes=PROBES)
    assert str(ours.value) == str(own.value)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    before = {name: p.detach().clone() for name, p in adapted.named_parameters() if "lora" in name}
    trainer = LayerTracerTrainer(
        model=adapted,
        args=arguments(folder),
        train_dataset=ROWS,
        probes=PROBES,
        layertracer_config=LayerTracerConfig(repeats=1),
    )
    trainer.train()
    assert trainer.layertracer_report.plan.trained_layers == [0, 1]
    changed = {
        int(name.split(".layers.")[1].split(".")[0])
        for name, p in adapted.named_parameters()
        if name in before and not torch.equal(p, before[name])
    }
    assert changed == {0, 1}


def test_a_model_loaded_from_gguf_is_diagnosed(model, expected, tmp_path):
    write_gguf(model, tmp_path / "tiny.gguf")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    assert_alike(diagnose(loaded, PROBES, config=QUICK), diagnose(with_unit_norms(model), PROBES, config=QUICK), 1e-5)
    with pytest.raises(ValueError, match="fine-tuning on purely quantized models"):
        LayerTracerTrainer(model=loaded, args=arguments(tmp_path), train_dataset=ROWS, probes=PROBES)


def test_a_model_quantized_by_torchao_is_diagnosed(model, expected, tmp_path):
    quantization = pytest.importorskip("torchao.quantization")
    from transformers import TorchAoConfig

    model.save_pretrained(tmp_path / "model")
    config = TorchAoConfig(quantization.Int8WeightOnlyConfig())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model", quantization_config=config)
    assert_alike(diagnose(loaded, PROBES, config=QUICK), expected, 0.03)
    assert_trained_as_transformers_does(loaded, tmp_path)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_model_quantized_by_bitsandbytes_is_diagnosed(model, expected, tmp_path, bits):
    pytest.importorskip("bitsandbytes")
    model.save_pretrained(tmp_path / "model")
    config = BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model", quantization_config=config)
    report = diagnose(loaded, PROBES, config=QUICK)
    assert_alike(report, expected, 0.1 if bits == 4 else 0.03)
    # Two numbers of four bits share a byte, and are two parameters all the same.
    assert [layer.parameters for layer in report.model.layers] == [layer.parameters for layer in expected.model.layers]
    assert_trained_as_transformers_does(loaded, tmp_path)


def test_packed_parameters_are_counted_as_the_numbers_they_stand_for(model):
    packed = nn.Parameter(torch.zeros(8, 1, dtype=torch.uint8), requires_grad=False)
    packed.quant_state = type("State", (), {"shape": torch.Size((4, 4))})
    assert elements(packed) == 16
    model.model.layers[1].mlp.up_proj.weight = packed
    assert model_facts(find_parts(model)).layers[1].parameters["mlp.up_proj.weight"] == 16


def with_unit_norms(model):
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data.fill_(1)
    return model


def write_gguf(model, path: Path) -> None:
    """The model's weights as llama.cpp names and orders them, with norms of 1."""
    config, heads = model.config, {"q": model.config.num_attention_heads, "k": model.config.num_key_value_heads}
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads["q"])
    writer.add_head_count_kv(heads["k"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)

    def add(name: str, weight: torch.Tensor) -> None:
        writer.add_tensor(f"{name}.weight", weight.detach().numpy().astype(np.float32))

    add("token_embd", model.model.embed_tokens.weight)
    add("output", model.lm_head.weight)
    add("output_norm", torch.ones(config.hidden_size))
    for index, layer in enumerate(model.model.layers):
        for short, count in heads.items():
            weight = getattr(layer.self_attn, f"{short}_proj").weight
            # llama.cpp interleaves the halves that RoPE rotates.
            halves = weight.view(count, 2, -1, weight.shape[-1]).swapaxes(1, 2)
            add(f"blk.{index}.attn_{short}", halves.reshape(weight.shape))
        add(f"blk.{index}.attn_v", layer.self_attn.v_proj.weight)
        add(f"blk.{index}.attn_output", layer.self_attn.o_proj.weight)
        for name in ("gate", "up", "down"):
            add(f"blk.{index}.ffn_{name}", getattr(layer.mlp, f"{name}_proj").weight)
        for name in ("attn_norm", "ffn_norm"):
            add(f"blk.{index}.{name}", torch.ones(config.hidden_size))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
