"""The two stages of healing, as trainers: all that a Trainer can (launchers, checkpoints, resuming) they can."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, Trainer

from ...modeling.wrappers import is_sharded
from ...planning import apply_plan, make_plan
from .pairs import forced_mixers, mixer_pairs, seen_attention


class _DonorTrainer(Trainer):
    """What both stages share: a frozen donor that sees the same batches.

    Args:
        donor ([`~transformers.PreTrainedModel`]): The model that the hybrid was before its mixers were replaced.
        args, kwargs: What [`~transformers.Trainer`] takes; `model` is the hybrid.
    """

    def __init__(self, *args: Any, donor: PreTrainedModel, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.donor = donor.to(self.args.device).eval().requires_grad_(False)
        # The loss of a batch is a mean already: it must not be divided by a number of tokens again.
        self.model_accepts_loss_kwargs = False

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor, None, None]:
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, self._prepare_inputs(inputs)).detach(), None, None

    def _donor_logits(self, inputs: dict[str, Any], **settings: Any) -> Tensor:
        with torch.no_grad():
            return self.donor(**_without_labels(inputs), use_cache=False, **settings).logits


class MixerAlignmentTrainer(_DonorTrainer):
    """Stage 1: each new mixer learns to put out what the donor's attention puts out for the same input.

    Each mixer gets the donor's input at its layer (teacher forcing), so all learn at once and none learns from the errors
    of another. Only the mixers train: the plan `"new-mixers"` is put into force on the model. The loss is, for each
    replaced layer, the squared error over the square of the attention's output, averaged over layers: 1 is what a mixer
    that puts out nothing has.

    Args:
        donor ([`~transformers.PreTrainedModel`]): The model that the hybrid was before its mixers were replaced.
        args, kwargs: What [`~transformers.Trainer`] takes; `model` is the hybrid.

    Example:

    ```python
    from hf_layertracer.hybrid.healing.trainers import MixerAlignmentTrainer

    trainer = MixerAlignmentTrainer(model=hybrid, donor=donor, args=args, train_dataset=blocks)
    trainer.train()
    ```
    """

    def __init__(self, *args: Any, donor: PreTrainedModel, **kwargs: Any):
        super().__init__(*args, donor=donor, **kwargs)
        self.plan = make_plan(self.model, "new-mixers")
        apply_plan(self.model, self.plan)
        self._pairs = mixer_pairs(self.model, self.donor)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **_: Any
    ) -> Tensor | tuple[Tensor, None]:
        given: dict[int, Tensor] = {}
        wanted: dict[int, Tensor] = {}
        made: dict[int, Tensor] = {}
        with seen_attention(self._pairs, given, wanted):
            self._donor_logits(inputs, logits_to_keep=1)
        with forced_mixers(self._pairs, given, made):
            last = model(**_without_labels(inputs), use_cache=False, logits_to_keep=1).logits
        mask = inputs.get("attention_mask")
        losses = [_relative_error(made[pair.layer], wanted[pair.layer], mask) for pair in self._pairs]
        loss = torch.stack(losses).mean()
        if is_sharded(self.model):
            # FSDP gathers a layer's parameters when the backward pass comes through the layer's own output.
            loss = loss + 0.0 * last.sum()
        return (loss, None) if return_outputs else loss


class DonorDistillationTrainer(_DonorTrainer):
    """Stage 2: the whole hybrid learns the donor's distribution over the next token.

    The loss is the Kullback-Leibler divergence from the donor's distribution to the hybrid's, in nats per token. Everything
    trains; the new mixers with a learning rate of their own.

    Args:
        donor ([`~transformers.PreTrainedModel`]): The model that the hybrid was before its mixers were replaced.
        mixer_learning_rate (`float`, *optional*): Of the new mixers; that of the arguments by default.
        args, kwargs: What [`~transformers.Trainer`] takes; `model` is the hybrid.
    """

    def __init__(self, *args: Any, donor: PreTrainedModel, mixer_learning_rate: float | None = None, **kwargs: Any):
        super().__init__(*args, donor=donor, **kwargs)
        self._mixer_learning_rate = mixer_learning_rate
        self._pairs = mixer_pairs(self.model, self.donor)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **_: Any
    ) -> Tensor | tuple[Tensor, None]:
        expected = self._donor_logits(inputs).float().log_softmax(-1)
        found = model(**_without_labels(inputs), use_cache=False).logits.float().log_softmax(-1)
        divergence = functional.kl_div(found, expected, reduction="none", log_target=True).sum(-1)
        loss = _mean_over_tokens(divergence, inputs.get("attention_mask"))
        return (loss, None) if return_outputs else loss

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        optimizer = super().create_optimizer(*args, **kwargs)
        if self._mixer_learning_rate is not None:
            mixers = {parameter for pair in self._pairs for parameter in pair.mixer.parameters()}
            for group in list(optimizer.param_groups):
                own = [parameter for parameter in group["params"] if parameter in mixers]
                if own:
                    group["params"] = [parameter for parameter in group["params"] if parameter not in mixers]
                    optimizer.add_param_group({**group, "params": own, "lr": self._mixer_learning_rate})
            optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
        return optimizer


def _without_labels(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if name != "labels"}


def _relative_error(found: Tensor, expected: Tensor, mask: Tensor | None) -> Tensor:
    """Squared error over the expected square, of all positions that the mask keeps."""
    kept = torch.ones_like(expected[..., :1]) if mask is None else mask[..., None]
    error = ((found.float() - expected.float()).square() * kept).sum()
    return error / (expected.float().square() * kept).sum().clamp_min(1e-12)


def _mean_over_tokens(values: Tensor, mask: Tensor | None) -> Tensor:
    return values.mean() if mask is None else (values * mask).sum() / mask.sum().clamp_min(1)
