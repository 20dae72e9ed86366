"""What came of a training run."""

from __future__ import annotations

from .base import Count, NonNegative, Real, Record


class TrainingOutcome(Record):
    """What came of a training run with the plan.

    Args:
        steps (`int`): Optimizer steps made in this process.
        seconds (`float`): Wall time of these steps, without evaluating, saving and diagnosing.
        tokens (`int`, *optional*): Tokens seen, padding included.
        tokens_per_second (`float`, *optional*): Over all processes.
        peak_memory_bytes (`int`): Peak of the accelerator's allocated memory, or of the process where there is none.
        peak_memory_of (`str`): `"cuda"` or `"process"`.
        expected_memory_bytes (`int`, *optional*): What that peak was estimated to be before the first step.
        trainable_parameters (`int`): Parameters counted in the optimizer.
        train_loss (`float`, *optional*): Mean training loss.
        eval_loss_before, eval_loss_after (`float`, *optional*):
            Evaluation loss at step 0, and the last one of the model that was kept.
    """

    steps: Count
    seconds: NonNegative
    tokens: Count | None = None
    tokens_per_second: NonNegative | None = None
    peak_memory_bytes: Count
    peak_memory_of: str
    expected_memory_bytes: Count | None = None
    trainable_parameters: Count
    train_loss: Real | None = None
    eval_loss_before: Real | None = None
    eval_loss_after: Real | None = None
