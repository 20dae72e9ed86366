from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.profiling import profiled_peak
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, MixtralConfig, Trainer, TrainingArguments

from hf_layertracer import LayerTracerError, apply_plan, estimate_training, make_plan


BATCH, LENGTH = 4, 64
SETTINGS = {
    "plain": {},
    "adafactor": {"optim": "adafactor"},
    "checkpointing": {"activation_checkpointing": True},
    "bf16": {"bf16": True},
    "accumulation": {"gradient_accumulation_steps": 3},
}


def configuration(**changes) -> LlamaConfig:
    """Large enough that tensors, not small change, fill the memory."""
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaConfig(vocab_size=512, num_hidden_layers=4, max_position_embeddings=256, **sizes | changes)


def arguments(folder, **settings) -> TrainingArguments:
    settings = {"per_device_train_batch_size": BATCH, "use_cpu": True, "report_to": "none", **settings}
    return TrainingArguments(output_dir=str(folder), **settings)


def measured_peak(model, args) -> int:
    """What torch's allocator gives out in the second step of a real run, beyond the weights, with the state in place."""
    cls, settings = Trainer.get_optimizer_cls_and_kwargs(args, model)
    optimizer = cls([p for p in model.parameters() if p.requires_grad], **settings)
    if args.activation_checkpointing:
        model.activation_checkpointing_enable(args.activation_checkpointing_kwargs)
    model.train()

    def step() -> None:
        for _ in range(args.gradient_accumulation_steps):
            tokens = torch.randint(0, 512, (BATCH, LENGTH))
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
                loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
            loss.backward()
            del loss
        optimizer.step()
        optimizer.zero_grad()

    step()
    state = sum(v.nbytes for values in optimizer.state.values() for v in values.values() if torch.is_tensor(v))
    return profiled_peak(step) + state


@pytest.mark.parametrize("allocation", ["full", "freeze-deep", "freeze-shallow", "lora"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_the_estimate_is_what_a_real_step_allocates(tmp_path, allocation, settings):
    model, args = AutoModelForCausalLM.from_config(configuration()), arguments(tmp_path, **settings)
    plan = None
    if allocation == "lora":
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    else:
        plan = make_plan(model, allocation)
    estimate = estimate_training(model, plan, args, sequence_length=LENGTH)
    if plan is not None:
        apply_plan(model, plan)
    weights = sum(p.nbytes for p in [*model.parameters(), *model.buffers()])
    assert estimate.weights_bytes == weights
    assert estimate.total_bytes == pytest.approx(measured_peak(model, args) + weights, rel=0.05)


def test_a_configuration_is_enough_and_gives_what_the_model_gives(tmp_path):
    config, args = configuration(), arguments(tmp_path)
    model = AutoModelForCausalLM.from_config(config)
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    config.save_pretrained(tmp_path)
    plan = make_plan(skeleton)
    wanted = estimate_training(model, plan, args, sequence_length=LENGTH)
    for source in (config, skeleton, str(tmp_path)):
        assert estimate_training(source, plan, args, sequence_length=LENGTH) == wanted


def test_tied_matrices_are_counted_once_wherever_the_model_comes_from(tmp_path):
    config = configuration(tie_word_embeddings=True)
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    real = AutoModelForCausalLM.from_config(config)
    weights = sum(p.nbytes for p in [*real.parameters(), *real.buffers()])
    for source in (config, skeleton, real):
        assert estimate_training(source, None, arguments(tmp_path), sequence_length=8).weights_bytes == weights


def test_neither_model_nor_its_flags_change(tmp_path):
    model = AutoModelForCausalLM.from_config(configuration())
    before = {name: (p.clone(), p.requires_grad) for name, p in model.named_parameters()}
    estimate_training(model, make_plan(model), arguments(tmp_path, activation_checkpointing=True), sequence_length=8)
    assert not model.is_activation_checkpointing
    assert all(
        torch.equal(p, before[name][0]) and p.requires_grad == before[name][1] for name, p in model.named_parameters()
    )
    assert all(p.grad is None for p in model.parameters())


def test_freezing_deep_layers_saves_state_and_freezing_shallow_ones_activations_too(tmp_path):
    model, args = AutoModelForCausalLM.from_config(configuration()), arguments(tmp_path)
    deep, shallow = (
        estimate_training(model, make_plan(model, name), args, sequence_length=LENGTH)
        for name in ("freeze-deep", "freeze-shallow")
    )
    full = deep.full
    assert deep.optimizer_bytes == pytest.approx(2 * deep.gradient_bytes, rel=1e-3)
    assert deep.optimizer_bytes < full.optimizer_bytes
    assert shallow.activation_bytes < deep.activation_bytes <= full.activation_bytes
    assert shallow.total_bytes < deep.total_bytes < full.total_bytes
    # Of the backward pass, a frozen deep layer saves half and a frozen shallow one all.
    assert shallow.flops_per_step < deep.flops_per_step < full.flops_per_step
    assert full.full is None


def test_operations_are_those_of_the_matrices_and_of_attention(tmp_path):
    config = configuration()
    estimate = estimate_training(config, None, arguments(tmp_path), sequence_length=LENGTH)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name)
    # Forward: queries with keys, weights with values; backward, both are derived by both, and the scores made again.
    attention = 4 * 2 * BATCH * LENGTH**2 * config.hidden_size * (2 + 5)
    assert estimate.flops_per_step == pytest.approx(6 * matrices * BATCH * LENGTH + attention, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operations_of_experts_are_those_of_the_ones_that_a_token_goes_to(tmp_path, dtype):
    config = MixtralConfig(
        vocab_size=128, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=8, num_experts_per_tok=2,
    )  # fmt: skip
    estimate = estimate_training(config, None, arguments(tmp_path), sequence_length=LENGTH, dtype=dtype)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    sizes = {name: p.numel() for name, p in model.named_parameters() if "embed" not in name and "norm" not in name}
    matrices = sum(size / 4 if "experts" in name else size for name, size in sizes.items())
    attention = 2 * 2 * BATCH * LENGTH**2 * config.hidden_size * (2 + 5)
    assert estimate.flops_per_step == pytest.approx(6 * matrices * BATCH * LENGTH + attention, rel=0.01)


def test_full_training_is_that_of_the_model_without_the_plan_in_force(tmp_path):
    model = AutoModelForCausalLM.from_config(configuration())
    plan = make_plan(model)
    before = estimate_training(model, plan, arguments(tmp_path), sequence_length=8)
    apply_plan(model, plan)
    assert estimate_training(model, plan, arguments(tmp_path), sequence_length=8) == before
    assert before.full.optimizer_bytes > before.optimizer_bytes
    assert estimate_training(model, None, arguments(tmp_path), sequence_length=8).full == before.full
    assert not model.lm_head.weight.requires_grad


def test_several_kinds_of_layers_are_traced_as_they_are(tmp_path):
    config = Gemma3TextConfig(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=7, num_attention_heads=2, head_dim=32,
        num_key_value_heads=1, sliding_window=16, max_position_embeddings=256,
    )  # fmt: skip
    model, args = AutoModelForCausalLM.from_config(config), arguments(tmp_path)
    estimate = estimate_training(model, None, args, sequence_length=LENGTH)
    assert estimate.total_bytes == pytest.approx(measured_peak(model, args) + estimate.weights_bytes, rel=0.05)


def test_a_device_says_whether_it_fits_and_how_long_a_step_takes(tmp_path):
    args = arguments(tmp_path)
    # In float32 a device reaches a small part of its rate in half precision, whether by type or by autocast.
    for dtype, settings, rate in ((None, {}, 67e12), (None, {"bf16": True}, 989e12), (torch.bfloat16, {}, 989e12)):
        run = arguments(tmp_path, **settings)
        roomy = estimate_training(configuration(), None, run, sequence_length=LENGTH, device="H100 80GB", dtype=dtype)
        assert roomy.fits
        assert roomy.seconds_per_step == pytest.approx(roomy.flops_per_step / (rate * 0.4))
    tight = estimate_training(configuration(), None, args, sequence_length=LENGTH, device="1MiB")
    assert tight.fits is False
    assert tight.seconds_per_step is None


def test_what_does_not_fit_comes_with_what_would(tmp_path):
    args = arguments(tmp_path, per_device_train_batch_size=8)
    need = estimate_training(configuration(), None, args, sequence_length=LENGTH).total_bytes
    smaller = arguments(
        tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=4, activation_checkpointing=True
    )
    limit = int(estimate_training(configuration(), None, smaller, sequence_length=LENGTH).total_bytes * 1.1) + 2**16
    assert limit < need
    tight = estimate_training(configuration(), None, args, sequence_length=LENGTH, device=f"{limit}B")
    assert tight.fits is False
    assert tight.proposal.startswith("activation_checkpointing=True")
    named = dict(part.split("=") for part in tight.proposal.split(", "))
    if "per_device_train_batch_size" in named:
        assert int(named["per_device_train_batch_size"]) * int(named["gradient_accumulation_steps"]) == 8
    hopeless = estimate_training(configuration(), None, args, sequence_length=LENGTH, device="1MiB")
    assert hopeless.proposal is None


@pytest.mark.parametrize("sharding", ["zero1", "zero2", "zero3", "fsdp"])
def test_more_devices_hold_less_each(tmp_path, sharding):
    alone, shared = (
        estimate_training(
            configuration(), None, arguments(tmp_path), sequence_length=8, world_size=n, sharding=sharding
        )
        for n in (1, 4)
    )
    assert shared.optimizer_bytes == pytest.approx(alone.optimizer_bytes / 4, rel=0.01)
    assert (shared.gradient_bytes < alone.gradient_bytes) == (sharding != "zero1")
    assert (shared.weights_bytes < alone.weights_bytes) == (sharding in ("zero3", "fsdp"))
    assert shared.activation_bytes == alone.activation_bytes


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sequence_length": 0}, "between 1 and"),
        ({"sequence_length": 10**9}, "between 1 and"),
        ({"device": "toaster"}, "Unknown device"),
        ({"sharding": "magic"}, "Unknown sharding"),
        ({"world_size": 0}, "at least 1"),
    ],
)
def test_bad_options_are_one_line(tmp_path, options, said):
    with pytest.raises(LayerTracerError, match=said):
        estimate_training(configuration(), None, arguments(tmp_path), **options)


def test_a_model_that_does_not_exist_is_one_line(tmp_path):
    with pytest.raises(LayerTracerError, match="no such folder"):
        estimate_training(str(tmp_path / "nothing"))
