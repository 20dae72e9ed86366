"""lm-evaluation-harness on local files, against prompts written by hand and likelihoods one sequence at a time."""

from __future__ import annotations

import json
import math
import sys

import pytest
import torch
from support.hub_repos import File
from tqdm import tqdm
from transformers.utils import logging

from hf_layertracer.errors import LayerTracerError
from hf_layertracer.evaluation import EvaluationConfig, EvaluationResult, check_evaluation, evaluate_model
from hf_layertracer.evaluation.harness import _add_metrics, _quiet


evaluator = pytest.importorskip("lm_eval.evaluator")

ACCOUNTANT = "以下是中国关于注册会计师的单项选择题，请选出其中的正确答案。\n\n"
ROSES = "以下是中国关于rose growing的单项选择题，请选出其中的正确答案。\n\n"
AGRONOMY = "以下是关于农学的单项选择题，请直接给出正确答案的选项。\n\n"


def question(index: int) -> str:
    return f"What is {index}?\nA. cat\nB. rose\nC. 北京\nD. the {index}\n答案："


@pytest.fixture
def model(tiny_llama):
    return tiny_llama(max_position_embeddings=1024)


@pytest.fixture
def likelihood(model, tiny_tokenizer):
    """Log-likelihood of a text after another one, which counts from the tokens of both together."""

    def score(context: str, text: str) -> float:
        start = len(tiny_tokenizer(context)["input_ids"]) if context else 0
        ids = [tiny_tokenizer.bos_token_id] * (not context) + tiny_tokenizer(context + text)["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
        first = start or 1
        return math.fsum(float(logits[place - 1, ids[place]]) for place in range(first, len(ids)))

    return score


def share(likelihoods: list[float], right: int) -> float:
    return likelihoods[right] - math.log(math.fsum(math.exp(value) for value in likelihoods))


def evaluate(model, tokenizer, *tasks: str, **settings) -> EvaluationResult:
    return evaluate_model(model, tokenizer, EvaluationConfig(probes=None, tasks=list(tasks), **settings))


def test_bars_of_the_harness_fill_no_log(capsys):
    logging.enable_progress_bar()
    with _quiet():
        list(tqdm(range(3)))
    assert capsys.readouterr().err == ""
    list(tqdm(range(3)))
    assert "3/3" in capsys.readouterr().err  # others' are as before


def test_nothing_is_said_where_there_is_no_git_repository(model, tiny_tokenizer, ceval, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    asides = evaluator.get_git_commit_hash, evaluator.add_env_info
    evaluate_model(model, tiny_tokenizer, EvaluationConfig(probes=None, tasks=[str(ceval)], limit=1))
    assert "git" not in capfd.readouterr().err
    assert (evaluator.get_git_commit_hash, evaluator.add_env_info) == asides


def test_ceval_has_the_prompts_that_people_compare_with(model, tiny_tokenizer, likelihood, ceval):
    result = evaluate(model, tiny_tokenizer, ceval)
    prompts = [(ACCOUNTANT + question(index), index) for index in range(3)] + [(ROSES + question(0), 0)]
    assert len(result.items) == 4
    for (prompt, right), item in zip(prompts, result.items, strict=True):
        likelihoods = [likelihood(prompt, f" {letter}") for letter in "ABCD"]
        assert item["value"] == pytest.approx(share(likelihoods, right), abs=1e-3)
        assert item["correct"] == (max(likelihoods) == likelihoods[right])
    assert [item["group"] for item in result.items] == ["accountant"] * 3 + ["rose_growing"]
    # Weighted by size: the mean over items, not that of two subjects.
    assert result.metrics["my_ceval/acc"] == pytest.approx(sum(item["correct"] for item in result.items) / 4)
    assert result.chance["my_ceval/acc"] == 0.25
    assert result.n["my_ceval/acc"] == 4
    assert "C-Eval of lm-evaluation-harness, local files, zero-shot" in result.protocols["my_ceval"]


def test_a_few_shot_prompt_begins_with_the_first_dev_questions(model, tiny_tokenizer, likelihood, cmmlu):
    result = evaluate(model, tiny_tokenizer, cmmlu, num_fewshot=2)
    examples = f"{question(1)} B\n\n{question(2)} C\n\n"
    for index, item in enumerate(result.items):
        likelihoods = [likelihood(AGRONOMY + examples + question(index), f" {letter}") for letter in "ABCD"]
        assert item["value"] == pytest.approx(share(likelihoods, index), abs=1e-3)
    assert "CMMLU of lm-evaluation-harness, local files, 2-shot" in result.protocols["my_cmmlu"]


def test_choices_follow_their_query(model, tiny_tokenizer, likelihood, write_jsonl):
    rows = [
        {"query": "Question: One, two?\n", "choices": ["three", "a cat"], "gold": 0},
        {"query": "Rome is", "choices": ["the capital", "a rose", "Berlin"], "gold": 2},
    ]
    result = evaluate(model, tiny_tokenizer, write_jsonl("arc.jsonl", rows))
    for context, row, item in zip(("Question: One, two?\nAnswer:", "Rome is"), rows, result.items, strict=True):
        likelihoods = [likelihood(context, f" {choice}") for choice in row["choices"]]
        assert item["value"] == pytest.approx(share(likelihoods, row["gold"]), abs=1e-3)
        assert item["correct"] == (max(likelihoods) == likelihoods[row["gold"]])
    assert result.chance["arc/acc"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert result.chance["arc/mean_log_probability"] == pytest.approx(-(math.log(2) + math.log(3)) / 2)
    assert {"arc/acc", "arc/acc_norm", "arc/mean_log_probability"} == set(result.metrics)


def test_of_minimal_pairs_the_likelier_sentence_is_chosen(model, tiny_tokenizer, likelihood, write_jsonl):
    rows = [
        {"paradigm": "order", "sentence_good": "One, two, three.", "sentence_bad": "Two one three,."},
        {"paradigm": "agreement", "sentence_good": "A cat is.", "sentence_bad": "A cat are."},
    ]
    result = evaluate(model, tiny_tokenizer, write_jsonl("blimp.jsonl", rows), num_fewshot=3)
    for row, item in zip(rows, result.items, strict=True):
        good, bad = (likelihood("", f" {row[name]}") for name in ("sentence_good", "sentence_bad"))
        assert item["value"] == pytest.approx(share([good, bad], 0), abs=1e-3)
        assert item["group"] == row["paradigm"]
    assert result.chance["blimp/acc"] == 0.5
    assert "zero-shot" in result.protocols["blimp"]


def test_model_tokenizer_and_random_state_are_left_as_they_were(model, make_tokenizer, ceval):
    tokenizer = make_tokenizer()
    tokenizer.pad_token = None
    state = torch.get_rng_state()
    evaluate(model.train(), tokenizer, ceval, limit=1)
    assert model.training
    assert tokenizer.pad_token is None
    assert torch.equal(torch.get_rng_state(), state)


def test_a_prompt_that_was_cut_is_said(tiny_llama, tiny_tokenizer, ceval):
    result = evaluate(tiny_llama(), tiny_tokenizer, ceval, limit=1)  # of 64 positions
    assert result.n["my_ceval/acc"] == 2
    assert result.notes == [
        "my_ceval: 2 of 2 prompts are longer than the model's context of 64 tokens and lost their beginning."
    ]


def test_two_tasks_of_one_name_are_refused(ceval, tmp_path, write_jsonl):
    write_jsonl("elsewhere/my_ceval/a.jsonl", [{"query": "a", "choices": ["b", "c"], "gold": 0}])
    with pytest.raises(LayerTracerError, match="two tasks with the name my_ceval"):
        check_evaluation(EvaluationConfig(tasks=[ceval, str(tmp_path / "elsewhere" / "my_ceval")]))


def test_a_name_passes_to_the_harness_and_an_unknown_one_is_noticed():
    check_evaluation(EvaluationConfig(tasks=["ceval-valid", "cmmlu", "arc_easy"]))
    with pytest.raises(LayerTracerError, match=r"arc_eazy is neither a file.*Did you mean .*arc_easy"):
        check_evaluation(EvaluationConfig(tasks=["arc_eazy"]))


def test_without_the_extra_the_line_says_what_to_install(monkeypatch, ceval):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(LayerTracerError, match=r'pip install "hf_layertracer\[eval\]"'):
        check_evaluation(EvaluationConfig(tasks=[ceval]))


ARC_CARD = """---
configs:
- config_name: ARC-Easy
  data_files:
  - {split: train, path: "*.jsonl"}
  - {split: validation, path: "*.jsonl"}
  - {split: test, path: "*.jsonl"}
---
"""


def test_a_task_of_the_harness_runs_under_its_name(hub, model, tiny_tokenizer, likelihood, tmp_path):
    rows = [
        {
            "id": str(number),
            "question": f"What follows {number}?",
            "choices": {"text": ["three", "a cat", "Rome"], "label": ["A", "B", "C"]},
            "answerKey": "B",
        }
        for number in range(4)
    ]
    repo = hub.create("dataset", "allenai/ai2_arc")
    files = {"README.md": File(ARC_CARD.encode()), "questions.jsonl": File("\n".join(map(json.dumps, rows)).encode())}
    repo.add("main", repo.head, "allenai", "questions", "", {**repo.head.files, **files})
    result = evaluate(model, tiny_tokenizer, "arc_easy", limit=3)
    assert result.n["arc_easy/acc"] == 3
    for row, item in zip(rows, result.items, strict=False):
        likelihoods = [
            likelihood(f"Question: {row['question']}\nAnswer:", f" {text}") for text in row["choices"]["text"]
        ]
        assert item["value"] == pytest.approx(share(likelihoods, 1), abs=1e-3)
    assert result.protocols["arc_easy"].startswith("lm-evaluation-harness, zero-shot")


def test_a_task_whose_data_are_gone_is_one_line(hub, model, tiny_tokenizer):
    with pytest.raises(LayerTracerError, match=r"Could not load the task piqa: .*baber/piqa"):
        evaluate(model, tiny_tokenizer, "piqa")


def test_a_score_that_is_not_the_mean_over_its_questions_is_said():
    rows = [
        {"filter": "none", "acc": correct, "filtered_resps": [""], "target": "a", "metrics": ["acc"]}
        for correct in (1, 0)
    ]
    result = EvaluationResult()
    _add_metrics(result, "exam", {"acc,none": 0.7, "acc_stderr,none": 0.1, "alias": "exam"}, rows)
    assert result.metrics == {"exam/acc": 0.7}
    assert result.notes == [
        "exam/acc is 0.7000, and the mean over its questions 0.5000: the group weights its parts, differences do not."
    ]
