"""What goes to the Hub in the background: the one place that knows what transformers has no documented way for.

`Trainer.push_in_progress` holds the uploads under way: `None`, or an object with `jobs` (futures), `is_done()` and
`wait_until_done()`. `tests/training/test_private.py` names the version of transformers that this was checked with.
"""

from __future__ import annotations

from typing import Any

from transformers import Trainer

from ..hub.transport import explain


def is_uploading(trainer: Trainer) -> bool:
    """Whether files of the output directory are on their way to the Hub: they must not change until they are there.

    Args:
        trainer ([`~transformers.Trainer`]): The trainer.

    Returns:
        `bool`: Whether an upload is under way.
    """
    push = push_of(trainer)
    return push is not None and not push.is_done()


def finish_upload(trainer: Trainer) -> None:
    """Waits for the uploads under way.

    Args:
        trainer ([`~transformers.Trainer`]): The trainer.
    """
    if is_uploading(trainer):
        push_of(trainer).wait_until_done()


def failed_upload(trainer: Trainer) -> str | None:
    """Why the last upload in the background failed, which the trainer itself does not say.

    Args:
        trainer ([`~transformers.Trainer`]): The trainer.

    Returns:
        `str`: One line, or `None` where none failed or all are under way.
    """
    push = push_of(trainer)
    for job in push.jobs if push is not None else ():
        if job.done() and not job.cancelled() and job.exception() is not None:
            error = job.exception()
            return explain(
                error.__cause__ or error if isinstance(error, RuntimeError) else error, trainer.hub_model_id
            )
    return None


def push_of(trainer: Trainer) -> Any:
    """The last push of a trainer, under way or done: an object that is another one for every push.

    Args:
        trainer ([`~transformers.Trainer`]): The trainer.

    Returns:
        `PushInProgress`: The push, or `None` where there was none.
    """
    return getattr(trainer, "push_in_progress", None)  # set with the repository, so only where the trainer pushes
