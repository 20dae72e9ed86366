"""EleutherAI's lm-evaluation-harness on a model in memory."""

from __future__ import annotations

import copy
import difflib
import importlib.util
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
from tqdm import tqdm
from transformers.utils.logging import is_progress_bar_enabled

from ..errors import LayerTracerError
from ..progress import bars_move
from ..text import one_line
from .config import EvaluationConfig
from .local_tasks import LocalTask, read_local_task
from .result import EvaluationItem, EvaluationResult


if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase


# After each task the harness asks git, which complains aloud where there is no repository, and takes a second to describe
# the machine: for fields of its answer that nobody reads here.
_ASIDES = ("get_git_commit_hash", "add_env_info")


def check_tasks(config: EvaluationConfig) -> None:
    """Finds what is wrong with tasks before a model is evaluated on them.

    Args:
        config ([`EvaluationConfig`]): What is to be evaluated.

    Raises:
        LayerTracerError: The extra is not installed, there is no such task, or local files do not fit.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise LayerTracerError('Tasks need lm-evaluation-harness: pip install "hf_layertracer[eval]"')
    names = [_read(task, config).name if Path(task).exists() else task for task in config.tasks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise LayerTracerError(f"There are two tasks with the name {twice[0]}: rename one folder or file.")
    known = None
    for task in config.tasks:
        if not Path(task).exists():
            known = known or _manager().all_tasks
            if task not in known:
                near = difflib.get_close_matches(task, known, n=3)
                hint = f" Did you mean {' or '.join(near)}?" if near else ""
                raise LayerTracerError(
                    f"{task} is neither a file or folder nor a task of lm-evaluation-harness.{hint}"
                )


def add_tasks(
    result: EvaluationResult, model: nn.Module, tokenizer: PreTrainedTokenizerBase, config: EvaluationConfig
) -> None:
    """Runs the tasks of a configuration and adds their metrics and items to a result.

    Args:
        result ([`EvaluationResult`]): Where to add them.
        model (`nn.Module`): The model, not wrapped; it is put into evaluation mode.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        config ([`EvaluationConfig`]): What is to be evaluated.

    Raises:
        LayerTracerError: A task could not be loaded.
    """
    from lm_eval.models.huggingface import HFLM

    with _quiet():
        # The harness gives tokenizers a padding token.
        lm = HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=config.batch_size)
        for task in config.tasks:
            _add_task(result, task, lm, config)


def _add_task(result: EvaluationResult, task: str, lm: Any, config: EvaluationConfig) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from .prompts import harness_group

    local = _read(task, config) if Path(task).exists() else None
    name = local.name if local else task
    try:
        manager = TaskManager(include_defaults=False) if local else _manager()
        loaded = manager.load([harness_group(local) if local else task])
    except Exception as error:  # a data set that is gone, no network, a task that needs another package
        raise LayerTracerError(f"Could not load the task {name}: {one_line(str(error), 200)}") from error
    # A tag stands for several tasks; a group has its own mean.
    parts = [loaded["groups"][name]] if name in loaded["groups"] else list(loaded["tasks"].values())
    evaluated = simple_evaluate(
        lm,
        tasks=parts,
        task_manager=manager,
        num_fewshot=config.num_fewshot,
        limit=config.limit,
        bootstrap_iters=0,
        random_seed=config.seed,
        numpy_random_seed=config.seed,
        torch_random_seed=config.seed,
        fewshot_random_seed=config.seed,
    )
    if evaluated is None:
        raise LayerTracerError("Tasks are evaluated by the main process alone: call it there.")
    for part in parts:
        is_group = name in loaded["groups"]
        key = name if is_group else part.task_name
        children = [child.task_name for child in part.get_all_tasks()] if is_group else [key]
        subjects = [subject.name for subject in local.subjects] if local else children
        samples = [_first_filter(evaluated["samples"][child]) for child in children]
        rows = [row for child in samples for row in child]
        result.protocols[key] = _protocol(local, {evaluated["n-shot"][child] for child in children})
        _add_metrics(result, key, evaluated["results"][key], rows)
        result.items += [
            _item(key, subject, child, row)
            for subject, child, group in zip(subjects, children, samples, strict=True)
            for row in group
        ]
        _note_truncation(result, key, rows, lm)


def _read(task: str, config: EvaluationConfig) -> LocalTask:
    return read_local_task(task, config.num_fewshot)


@lru_cache(maxsize=1)
def _manager() -> Any:
    """The harness' index of its tasks, which takes seconds to build."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _protocol(local: LocalTask | None, shots: set[int]) -> str:
    from .prompts import PROTOCOLS

    # Some tasks fix how many examples they show.
    shown = " and ".join("zero-shot" if count == 0 else f"{count}-shot" for count in sorted(shots))
    source = f"{PROTOCOLS[local.layout]}, local files" if local else "lm-evaluation-harness"
    return f"{source}, {shown}, lm_eval {version('lm_eval')}"


def _first_filter(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a question: a task with several filters of its answers has a row for each."""
    return [row for row in rows if row["filter"] == rows[0]["filter"]]


def _add_metrics(result: EvaluationResult, key: str, computed: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    for name, value in computed.items():
        metric, comma, chosen = name.partition(",")
        if comma and not metric.endswith("_stderr") and isinstance(value, int | float):
            result.metrics[f"{key}/{metric if chosen == 'none' else name}"] = float(value)
    score, own = result.metrics.get(f"{key}/acc"), [row["acc"] for row in rows if "acc" in row]
    if score is not None and own and abs(score - np.mean(own)) > 1e-6:
        result.notes.append(
            f"{key}/acc is {score:.4f}, and the mean over its questions {np.mean(own):.4f}: the group weights its parts, "
            "differences do not."
        )
    likelihoods = [value for value in map(_choice_log_probability, rows) if value is not None]
    if len(likelihoods) == len(rows):
        result.metrics[f"{key}/mean_log_probability"] = float(np.mean(likelihoods))
        options = np.array([len(row["filtered_resps"]) for row in rows])
        result.chance[f"{key}/mean_log_probability"] = float(-np.log(options).mean())
        result.chance |= {f"{key}/{name}": float((1 / options).mean()) for name in ("acc", "acc_norm")}
    result.n |= {name: len(rows) for name in result.metrics if name.startswith(f"{key}/")}
    result.chance = {name: level for name, level in result.chance.items() if name in result.metrics}


def _choice_log_probability(row: dict[str, Any]) -> float | None:
    """Logarithm of the right choice's share of the choices' probabilities; `None` for other kinds of questions."""
    answers, target = row["filtered_resps"], str(row["target"])
    likelihoods = [answer[0] for answer in answers if isinstance(answer, tuple | list) and len(answer) == 2]
    if len(likelihoods) != len(answers) or len(answers) < 2 or "acc" not in row or not target.isdigit():
        return None
    if int(target) >= len(likelihoods) or "acc_mutual_info" in row:  # which asks for each choice twice
        return None
    return float(likelihoods[int(target)] - np.logaddexp.reduce(likelihoods))


def _item(key: str, subject: str, child: str, row: dict[str, Any]) -> EvaluationItem:
    item = EvaluationItem(set=key, item=f"{child}:{row['doc_id']}", group=str(row["doc"].get("paradigm", subject)))
    score = next((row[name] for name in ("acc", *row["metrics"]) if isinstance(row.get(name), int | float)), None)
    if score in (0, 1):
        item["correct"] = bool(score)
    likelihood = _choice_log_probability(row)
    if likelihood is not None:
        item["value"] = likelihood
    elif score is not None:
        item["value"] = float(score)
    return item


def _note_truncation(result: EvaluationResult, key: str, rows: list[dict[str, Any]], lm: Any) -> None:
    texts = ["".join(part for part in row["arguments"][0] if isinstance(part, str)) for row in rows]
    long = sum(len(ids) > lm.max_length + 1 for ids in lm.tokenizer(texts, verbose=False)["input_ids"])
    if long:
        result.notes.append(
            f"{key}: {long} of {len(rows)} prompts are longer than the model's context of {lm.max_length} tokens and "
            "lost their beginning."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the harness as quiet as transformers is told to be, and its bars out of pipes and files, which they fill."""
    from lm_eval import evaluator

    harness, initialise = logging.getLogger("lm_eval"), tqdm.__init__

    def initialise_silently(bar: tqdm, *arguments: Any, **options: Any) -> None:
        initialise(bar, *arguments, **options | {"disable": True})

    with ExitStack() as silenced:
        silenced.callback(harness.setLevel, harness.level)
        harness.setLevel(logging.ERROR)
        if not (is_progress_bar_enabled() and bars_move()):
            silenced.enter_context(mock.patch.object(tqdm, "__init__", initialise_silently))
        for name in _ASIDES:
            if hasattr(evaluator, name):
                silenced.enter_context(mock.patch.object(evaluator, name, return_value=None))
        yield
