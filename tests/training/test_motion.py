"""What trains has to move, in the first step that must show it; nothing else ends a run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from hf_layertracer import LayerTracerError, LayerTracerTrainer
from hf_layertracer.training.motion import MotionCheck


def _make(dtype: torch.dtype = torch.float32) -> nn.Linear:
    """A weight of ones, in which short steps are lost, and a bias of zeros, in which every step shows."""
    model = nn.Linear(4, 4).to(dtype)
    nn.init.ones_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def _step(check: MotionCheck, model: nn.Linear, optimizer: torch.optim.Optimizer, step: int, **shares: float) -> None:
    optimizer.zero_grad()
    model(torch.ones(1, 4, dtype=model.weight.dtype)).sum().backward()
    check.before_update(model, optimizer, shares)
    optimizer.step()
    check.after_update(model, optimizer, step)


def _asked() -> MotionCheck:
    check = MotionCheck()
    check.ask()
    return check


@pytest.mark.parametrize(("dtype", "raises"), [(torch.float32, True), (torch.bfloat16, False)])
def test_a_tensor_that_has_gradients_and_stays_is_told(dtype, raises, caplog):
    model = nn.Linear(4, 4).to(dtype)
    nn.init.ones_(model.weight)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    model(torch.ones(1, 4, dtype=dtype)).sum().backward()
    nn.init.zeros_(model.bias)
    optimizer.param_groups[0]["params"] = [model.bias] if raises else [model.weight, model.bias]
    check = MotionCheck()
    check.ask()
    check.before_update(model, optimizer)
    optimizer.step()
    if raises:
        with pytest.raises(LayerTracerError, match=r"step 3, 1 of 2 tensors that train \(weight"):
            check.after_update(model, optimizer, 3)
    else:
        check.after_update(model, optimizer, 3)
        assert "lost in rounding" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam])
def test_a_tensor_that_the_optimizer_lacks_is_found_in_every_type(dtype, kind):
    model = _make(dtype)
    with torch.no_grad():
        model.weight[0, 0] = 1e-4  # one value that shows a short step is enough
    check = _asked()
    with pytest.raises(LayerTracerError, match=r"1 of 2 tensors that train \(weight\).*did not move"):
        _step(check, model, kind([model.bias], lr=1e-4), 0)


def test_what_is_put_back_after_each_step_is_found():
    model, check = _make(), _asked()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)
    model(torch.ones(1, 4)).sum().backward()
    check.before_update(model, optimizer)
    optimizer.step()
    nn.init.ones_(model.weight)
    with pytest.raises(LayerTracerError, match=r"\(weight\)"):
        check.after_update(model, optimizer, 0)


def test_a_loss_that_is_scaled_makes_no_step_longer():
    model, check, scale = _make(), _asked(), 2.0**16
    optimizer = torch.optim.SGD([model.weight], lr=1e-9)
    (scale * model(torch.ones(1, 4)).sum()).backward()
    model.bias.grad = None
    check.before_update(model, optimizer, scale=scale)
    model.weight.grad /= scale
    optimizer.step()
    check.after_update(model, optimizer, 0)  # too short to show, and no fault of the optimizer


def _warm_up(by: str, check: MotionCheck, model: nn.Linear, held: list[nn.Parameter]) -> Iterator[int]:
    optimizer = torch.optim.AdamW(held, lr=3e-5, weight_decay=0.0)
    for step in range(1000):
        share = (step + 1) / 1000
        if by == "rate":
            optimizer.param_groups[0]["lr"] = 3e-5 * share
        yield step
        _step(check, model, optimizer, step, **({"weight": share} if by == "share" else {}))


@pytest.mark.parametrize("by", ["rate", "share"])
def test_a_warm_up_that_is_lost_in_rounding_ends_no_run(by):
    model, check = _make(), _asked()
    assert list(_warm_up(by, check, model, list(model.parameters())))[-1] == 999
    assert check.summary() is None


@pytest.mark.parametrize("by", ["rate", "share"])
def test_what_does_not_move_in_a_warm_up_is_found_once_it_would_show(by):
    model = _make()
    with pytest.raises(LayerTracerError, match=r"1 of 1 tensors that train \(weight\)") as raised:
        list(_warm_up(by, _asked(), model, [model.bias]))
    assert 20 < int(re.findall(r"after step (\d+)", str(raised.value))[0]) < 100


def test_what_no_step_could_show_is_told_at_the_end():
    model, check = _make(), _asked()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-9, weight_decay=0.0)
    for step in range(100):
        _step(check, model, optimizer, step)
    assert check.summary().startswith("1 of 2 tensors that train (weight) had gradients and were not seen to move")


def test_it_is_looked_at_a_bounded_number_of_times(monkeypatch):
    looks, own, model = [], MotionCheck._look, _make()

    def count(self: MotionCheck, name: str, *given: Any) -> None:
        looks.append(name)
        own(self, name, *given)

    monkeypatch.setattr(MotionCheck, "_look", count)
    check, optimizer = _asked(), torch.optim.SGD(model.parameters(), lr=1e-9)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 1e-9 * (1 + step / 10)
        _step(check, model, optimizer, step)
    assert looks.count("bias") == 1
    assert 5 < looks.count("weight") <= 32


def test_other_optimizers_end_a_run_only_where_nothing_moves(caplog):
    model = _make()
    _step(_asked(), model, torch.optim.SGD([model.bias], lr=1e-3), 0)
    assert "weight had gradients and did not move, as others did: look whether SGD trains it" in caplog.text
    other = nn.Parameter(torch.ones(1))
    with pytest.raises(LayerTracerError, match="2 of 2 tensors"):
        _step(_asked(), model, torch.optim.SGD([other], lr=1e-3), 0)


def test_a_run_with_a_long_warm_up_goes_on_and_says_what_it_could_not_check(
    make_model, make_args, token_dataset, quick
):
    arguments = {"max_steps": 6, "learning_rate": 3e-5, "warmup_steps": 10000}
    trainer = LayerTracerTrainer(
        model=make_model(),
        args=make_args(**arguments),
        train_dataset=token_dataset,
        layertracer_config=quick(strategy="lisa", change_steps=2, thaw_warmup_steps=2),
    )
    trainer.train()
    (note,) = [note for note in trainer.layertracer_report.notes if "were not seen to move" in note]
    assert "norm" in note
