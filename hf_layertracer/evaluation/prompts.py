"""Local benchmarks as tasks of lm-evaluation-harness, with its own prompts where it has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lm_eval
import yaml
from datasets import Dataset
from lm_eval.api.group import Group
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

from .local_tasks import LocalTask, Row, Subject


_METRICS = [{"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("acc", "acc_norm")]
_COMMON = {
    "validation_split": "questions",
    "fewshot_split": "examples",
    "fewshot_config": {"sampler": "first_n"},
    "output_type": "multiple_choice",
    "metric_list": _METRICS,
}
# A query that begins as the harness' prompts of ARC and PIQA do goes on as they do.
_CHOICES = {
    "doc_to_text": "{{query.strip()}}{% if query.startswith('Question:') %}\nAnswer:{% endif %}",
    "doc_to_choice": "choices",
    "doc_to_target": "{{gold}}",
}
_PAIRS = {
    "doc_to_text": "",
    "doc_to_choice": "{{[sentence_good, sentence_bad]}}",
    "doc_to_target": 0,
    "num_fewshot": 0,  # which the harness then never overrides
    "metric_list": _METRICS[:1],
}
# The harness' own tasks, whose prompts name each subject in Chinese; the rest for subjects that it does not know.
_CSV: dict[str, dict[str, Any]] = {
    "ceval": {
        "prefix": "ceval-valid_",
        "splits": ("val", "dev"),
        "description": "以下是中国关于{}的单项选择题，请选出其中的正确答案。\n\n",
        "question": "question",
        "answer": "answer",
    },
    "cmmlu": {
        "prefix": "cmmlu_",
        "splits": ("test", "dev"),
        "description": "以下是关于{}的单项选择题，请直接给出正确答案的选项。\n\n",
        "question": "Question",
        "answer": "Answer",
    },
}
PROTOCOLS = {
    "ceval": "C-Eval of lm-evaluation-harness",
    "cmmlu": "CMMLU of lm-evaluation-harness",
    "choices": "query, then each choice after a space; ARC's and PIQA's prompts of lm-evaluation-harness",
    "pairs": "which sentence is likelier, as BLiMP of lm-evaluation-harness",
}


def harness_group(task: LocalTask) -> Group:
    """A group for lm-evaluation-harness, with a task a subject and their mean weighted by size.

    Args:
        task ([`LocalTask`]): The benchmark.

    Returns:
        `lm_eval.api.group.Group`: What the harness evaluates.
    """
    own = _own_tasks(task.layout) if task.layout in _CSV else {}
    group = Group.from_config(
        {
            "group": task.name,
            "aggregate_metric_list": [
                {"metric": metric["metric"], "aggregation": "mean", "weight_by_size": True} for metric in _METRICS
            ],
        }
    )
    for subject in task.subjects:
        settings = _lettered(task.layout, subject, own) if task.layout in _CSV else _listed(task.layout, subject)
        if not subject.examples:
            del settings["fewshot_split"]
        group.add(ConfigurableTask(config=settings))
    return group


def _listed(layout: str, subject: Subject) -> dict[str, Any]:
    data = _in_memory(questions=subject.questions, examples=subject.examples)
    prompt = _CHOICES if layout == "choices" else _PAIRS
    return _COMMON | prompt | {"task": f"{layout}_{subject.name}", "custom_dataset": data}


def _lettered(layout: str, subject: Subject, own: dict[str, Path]) -> dict[str, Any]:
    settings = _CSV[layout]
    name, (questions, examples) = settings["prefix"] + subject.name, settings["splits"]
    if name in own:
        prompt = _prompt(own[name])
    else:
        question, answer = settings["question"], settings["answer"]
        prompt = _COMMON | {
            "validation_split": questions,
            "fewshot_split": examples,
            "description": settings["description"].format(subject.name.replace("_", " ")),
            "doc_to_text": f"{{{{{question}.strip()}}}}\nA. {{{{A}}}}\nB. {{{{B}}}}\nC. {{{{C}}}}\nD. {{{{D}}}}\n答案：",
            "doc_to_choice": ["A", "B", "C", "D"],
            "doc_to_target": f"{{{{['A', 'B', 'C', 'D'].index({answer})}}}}",
        }
    data = _in_memory(**{questions: subject.questions, examples: subject.examples})
    return prompt | {"task": name, "custom_dataset": data}


def _own_tasks(layout: str) -> dict[str, Path]:
    """The harness' own tasks of a layout, by name, and where their prompts stand."""
    folder = Path(lm_eval.__file__).parent / "tasks" / layout
    index = TaskManager(include_defaults=False, include_path=folder).task_index
    return {name: Path(entry.yaml_path) for name, entry in index.items() if entry.yaml_path}


def _prompt(path: Path) -> dict[str, Any]:
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    common = yaml.safe_load((path.parent / settings.pop("include")).read_text(encoding="utf-8"))
    return {name: value for name, value in (common | settings).items() if not name.startswith("dataset_")}


def _in_memory(**splits: list[Row]) -> Callable[..., dict[str, Dataset]]:
    # The harness takes a function here. Rows that were checked need no copy in the cache of `datasets`, which would
    # also outlive a change of the files.
    return lambda **_: {split: Dataset.from_list(rows) for split, rows in splits.items() if rows}
