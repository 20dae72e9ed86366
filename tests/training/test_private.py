"""What this package relies on in transformers beyond its documentation. Checked with transformers 5.23.0.

A newer transformers that changes one of these fails here, by name, before it fails a user.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest
import torch
import transformers
from transformers import Trainer, TrainerCallback
from transformers.utils.hub import PushInProgress

from hf_layertracer import LayerTracerTrainer
from hf_layertracer.training.events import TracingEvents
from hf_layertracer.training.trainer import argument_of
from hf_layertracer.training.uploads import failed_upload, finish_upload, is_uploading


CHECKED_WITH = "5.23.0"
CHANGED = f"transformers {transformers.__version__} differs from {CHECKED_WITH}, which this was checked with"


@pytest.mark.parametrize("again", [False, True])
def test_training_asks_for_its_data_once_the_model_is_there_and_before_there_is_an_optimizer(
    again, make_model, make_args, token_dataset
):
    """Where the mixin diagnoses and freezes."""
    seen: list[tuple[str, bool, bool, Any]] = []

    class Watched(Trainer):
        def get_train_dataloader(self):
            weight = self.model.get_input_embeddings().weight
            seen.append(("data", self.is_in_train, self.model_wrapped is self.model, weight.detach().clone()))
            assert self.optimizer is None, CHANGED
            return super().get_train_dataloader()

        def create_optimizer(self, *args, **kwargs):
            seen.append(("optimizer", self.is_in_train, self.model_wrapped is self.model, None))
            return super().create_optimizer(*args, **kwargs)

    args = make_args(save_strategy="steps", save_steps=2)
    trainer = Watched(model_init=lambda: make_model(), args=args, train_dataset=token_dataset)
    trainer.train()
    if again:
        seen.clear()
        trainer = Watched(model_init=lambda: make_model(), args=args, train_dataset=token_dataset)
        trainer.train(resume_from_checkpoint=True)
        loaded = transformers.AutoModelForCausalLM.from_pretrained(f"{args.output_dir}/checkpoint-3")
        assert torch.equal(seen[0][3], loaded.get_input_embeddings().weight), CHANGED
    assert [entry[:3] for entry in seen] == [("data", True, True), ("optimizer", True, True)], CHANGED


def test_uploads_in_the_background_are_where_they_were(make_model, make_args, token_dataset):
    trainer = Trainer(model=make_model(), args=make_args(), train_dataset=token_dataset)
    assert not is_uploading(trainer)
    assert failed_upload(trainer) is None
    job: Future = Future()
    trainer.push_in_progress = PushInProgress([job])
    assert is_uploading(trainer), CHANGED
    trainer.hub_model_id = "alice/tiny"
    job.set_exception(RuntimeError("gone"))
    finish_upload(trainer)
    assert not is_uploading(trainer)
    assert "gone" in failed_upload(trainer), CHANGED


def test_the_callback_stands_behind_the_first_and_before_those_that_others_count_from_the_end(
    make_model, make_args, token_dataset
):
    class Mine(TrainerCallback):
        pass

    plain = Trainer(model=make_model(), args=make_args(), train_dataset=token_dataset, callbacks=[Mine()])
    traced = LayerTracerTrainer(model=make_model(), args=make_args(), train_dataset=token_dataset, callbacks=[Mine()])
    expected = [type(callback) for callback in plain.callback_handler.callbacks]
    found = [type(callback) for callback in traced.callback_handler.callbacks]
    assert found == [expected[0], TracingEvents, *expected[1:]], CHANGED
    assert found[-2] is Mine


@pytest.mark.parametrize(("args", "kwargs"), [(("checkpoint",), {}), ((), {"resume_from_checkpoint": "checkpoint"})])
def test_an_argument_is_found_by_position_and_by_name(args, kwargs):
    def wrapped(*args, **kwargs):
        pass

    trainer = Trainer.__new__(Trainer)
    assert argument_of(trainer.train, "resume_from_checkpoint", args, kwargs) == "checkpoint", CHANGED
    assert argument_of(trainer.train, "resume_from_checkpoint", (), {}) is None
    if kwargs:
        assert argument_of(wrapped, "resume_from_checkpoint", args, kwargs) == "checkpoint"
