from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from hf_layertracer.diagnosis.score import score_probes
from hf_layertracer.errors import LayerTracerError
from hf_layertracer.evaluation import EvaluationConfig, EvaluationResult, check_evaluation, evaluate_model
from hf_layertracer.evaluation.blocks import Block
from hf_layertracer.evaluation.likelihood import score_blocks
from hf_layertracer.probes import builtin_probes


NEW, OLD = "Rome is the capital of Italy.\nBerlin is the capital of Germany. 中国的首都是北京。", "A cat is an animal."


@pytest.fixture
def config(tmp_path):
    (tmp_path / "new.txt").write_text(NEW, encoding="utf-8")
    (tmp_path / "old.jsonl").write_text(json.dumps({"text": OLD}) + "\n", encoding="utf-8")
    return EvaluationConfig(
        new=[str(tmp_path / "new.txt")], old=[str(tmp_path / "old.jsonl")], probes=None, sequence_length=8
    )


@pytest.mark.parametrize("name", ["Llama", "Mamba"])
def test_the_text_metrics_are_those_of_one_token_at_a_time(make_model, tiny_tokenizer, config, name):
    model = make_model(name).double()
    result = evaluate_model(model, tiny_tokenizer, config)
    for kind, text in (("new", NEW), ("old", OLD)):
        ids, nats, start = tiny_tokenizer(text)["input_ids"], [], tiny_tokenizer.bos_token_id
        for tokens in [item["tokens"] for item in result.items if item["set"] == kind]:
            begin = len(nats)
            for index in range(begin, begin + tokens):
                with torch.no_grad():
                    logits = model(input_ids=torch.tensor([[start, *ids[begin:index]]])).logits[0, -1]
                partition = math.fsum(math.exp(value) for value in logits.tolist())
                nats.append(math.log(partition) - float(logits[ids[index]]))
        assert len(nats) == len(ids)
        total = math.fsum(nats)
        assert result.metrics[f"{kind}/perplexity"] == pytest.approx(math.exp(total / len(ids)), rel=1e-5)
        assert result.metrics[f"{kind}/bits_per_byte"] == pytest.approx(
            total / math.log(2) / len(text.encode()), rel=1e-5
        )


def test_the_items_make_up_the_metrics_and_come_back_from_json(tiny_llama, tiny_tokenizer, config):
    result = evaluate_model(tiny_llama(), tiny_tokenizer, config)
    items = [item for item in result.items if item["set"] == "new"]
    assert len(items) == result.n["new/bits_per_byte"] == result.n["new/perplexity"] > 3
    assert {item["group"] for item in items} == {"0:0"}
    size = sum(item["bytes"] for item in items)
    mean = sum(item["value"] * item["bytes"] for item in items) / size
    assert mean == pytest.approx(result.metrics["new/bits_per_byte"], rel=1e-9)
    assert size == len(NEW.encode())
    assert EvaluationResult(**json.loads(json.dumps(result.to_dict()))) == result


def test_the_probes_are_those_of_the_diagnosis(tiny_llama, tiny_tokenizer):
    model, probes = tiny_llama(), builtin_probes()
    result = evaluate_model(model, tiny_tokenizer)
    scores = score_probes(model, probes, tiny_tokenizer)
    assert result.metrics == {
        "probes/accuracy": scores.accuracy,
        "probes/mean_log_probability": scores.mean_log_probability,
    }
    assert [item["group"] for item in result.items] == [probe.task for probe in probes]
    assert [item["correct"] for item in result.items] == list(scores.correct)
    assert result.n["probes/accuracy"] == len(probes)


def test_a_block_is_no_longer_than_the_model_can_read(tiny_llama, tiny_tokenizer, tmp_path):
    (tmp_path / "long.txt").write_text(NEW * 5, encoding="utf-8")
    config = EvaluationConfig(new=[str(tmp_path / "long.txt")], probes=None)
    result = evaluate_model(tiny_llama(), tiny_tokenizer, config)  # of 64 positions
    assert max(item["tokens"] for item in result.items) == 64
    assert "blocks of 64 tokens" in result.protocols["new"]


def test_it_is_said_how_many_documents_the_errors_rest_on(tiny_llama, tiny_tokenizer, config, tmp_path):
    (tmp_path / "old.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in (OLD, NEW, NEW)))
    protocols = evaluate_model(tiny_llama(), tiny_tokenizer, config).protocols
    assert "all from one document: they are taken to be independent" in protocols["new"]
    assert "error of the items may be too small" in protocols["new"]
    assert "from 3 documents, each of which counts once" in protocols["old"]


def test_the_model_is_left_as_it_was(tiny_llama, tiny_tokenizer, config):
    model = tiny_llama().train()
    evaluate_model(model, tiny_tokenizer, config)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"probes": None}, "nothing to evaluate"),
        ({"new": ["nowhere.txt"]}, "no text file nowhere.txt"),
        ({"probes": "nowhere.jsonl"}, "no probes nowhere.jsonl"),
    ],
)
def test_what_cannot_be_evaluated_is_said_before_it_begins(values, message):
    with pytest.raises(LayerTracerError, match=message):
        check_evaluation(EvaluationConfig(**values))


def test_a_tokenizer_of_another_model_is_noticed(tiny_llama, tiny_tokenizer, config):
    with pytest.raises(LayerTracerError, match="outside the model's vocabulary of 40"):
        evaluate_model(tiny_llama(vocab_size=40), tiny_tokenizer, config)


@pytest.mark.parametrize("name", ["Llama", "GPT2", "Gemma2", "Mixtral", "Mamba"])
def test_what_else_is_in_a_batch_changes_nothing(make_model, name):
    model, rng = make_model(name).double(), np.random.default_rng(0)
    blocks = [
        Block(tuple(rng.integers(3, 300, length + 1).tolist()), length, str(length), "") for length in (9, 30, 11, 12)
    ]
    together = score_blocks(model, blocks)
    alone = [score_blocks(model, [block]).nats[0] for block in blocks]
    assert together.nats == pytest.approx(alone, rel=1e-5)
    assert together.tokens == 62


def test_a_model_that_sees_what_it_is_to_predict_is_refused(make_model):
    blocks = [Block(tuple(range(1, 20)), 18, "0", "")]
    with pytest.raises(LayerTracerError, match="BertLMHeadModel is not a causal language model"):
        score_blocks(make_model("Bert"), blocks)
    assert score_blocks(make_model("Bert", is_decoder=True), blocks).tokens > 0
