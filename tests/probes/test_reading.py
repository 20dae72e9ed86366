from __future__ import annotations

import json
from itertools import count

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_layertracer.errors import LayerTracerError
from hf_layertracer.probes import Probe, as_probes, builtin_probes, load_probes


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def jsonl(path, rows):
    return write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


PAIRS = [{"prompt": f"question {i}", "target": f" {i}"} for i in range(20)]


# -- files -----------------------------------------------------------------------------------------------------------


def test_a_jsonl_file_gives_its_pairs_in_order(tmp_path):
    path = jsonl(tmp_path / "p.jsonl", [{**PAIRS[0], "task": "sums"}, PAIRS[1]])
    expected = [Probe("question 0", " 0", "sums"), Probe("question 1", " 1", "default")]
    assert load_probes(path) == load_probes(str(path)) == expected


def test_blank_lines_and_a_byte_order_mark_are_ignored(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(PAIRS[0]).encode() + b"\r\n\r\n" + json.dumps(PAIRS[1]).encode())
    assert [probe.target for probe in load_probes(path)] == [" 0", " 1"]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c"])
def test_unicode_line_separators_inside_a_text_end_no_line(tmp_path, separator):
    # JSON and CSV allow them unescaped inside a string, and web text has them; str.splitlines() breaks lines there.
    rows = [{"prompt": f"one{separator}two", "target": " three"}]
    expected = [Probe(f"one{separator}two", " three", "default")]
    assert load_probes(jsonl(tmp_path / "p.jsonl", rows)) == expected
    probes = load_probes(write(tmp_path / "p.csv", f"prompt,target\none{separator}two, three\n"))
    assert [probe.prompt for probe in probes] == [f"one{separator}two"]


def test_a_json_file_may_be_an_array_or_json_lines(tmp_path):
    array = write(tmp_path / "array.json", json.dumps(PAIRS[:3], indent=1))
    lines = jsonl(tmp_path / "lines.json", PAIRS[:3])
    assert load_probes(array) == load_probes(lines)
    assert len(load_probes(array)) == 3


def test_a_folder_gives_the_probes_of_all_its_files(tmp_path):
    jsonl(tmp_path / "b.jsonl", PAIRS[:2])
    (tmp_path / "deeper").mkdir()
    write(tmp_path / "deeper" / "c.csv", "prompt,target\nwhy, because\n")
    write(tmp_path / "notes.txt", "not a probe")
    assert load_probes(tmp_path) == [
        Probe("question 0", " 0"),
        Probe("question 1", " 1"),
        Probe("why", " because", "c"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"prompt": "a", "target": "b"}\n{"prompt": \n', "a.jsonl, line 2 is not JSON"),
        ("a.jsonl", '{"prompt": "a", "target": "b"}\n\n[1]\n', "line 3: expected an object, found list"),
        ("a.jsonl", '{"prompt": "a", "target": "b"}\n{"prompt": "a"}\n', "line 2: 'target' is missing"),
        ("a.jsonl", '{"prompt": "a", "target": 7}\n', "line 1: 'target' is missing or not text"),
        ("a.json", '[{"prompt": "a",\n "target" "b"}]', "a.json, line 2 is not JSON"),
        ("a.json", '[{"prompt": "a", "target": "b"}, 3]', "item 1: expected an object, found int"),
        ("a.jsonl", "", "No probe in .*empty"),
        ("a.csv", "", "No probe in"),
        ("a.csv", "prompt,target\n", "No probe in"),
        ("a.csv", "foo,bar\n1,2\n", r"line 2: no layout.*\['bar', 'foo', 'task'\].*prompt and target"),
        ("a.csv", "foo,bar\n1,2,3\n", "line 2 has 3 values, but the header names 2 columns"),
        ("a.csv", 'prompt,target\n"two\nlines", x\nlonely\n', "line 4: 'target' is missing"),
        ("a.csv", "prompt,target\n" + "x" * 140_000 + ", y\n", "a.csv, line 2 is not CSV"),
        ("a.csv", "id,question,A,B,answer\n0,Why?,x,y,C\n", "line 2: the answer 'C' is none of the labels"),
        ("a.csv", "id,question,A,B,answer\n0,,x,y,A\n", "line 2: there is no question"),
        ("a.csv", "question,A,B,answer\nWhy?,x,,A\n", "line 2: the option 'B' is empty"),
        ("a.jsonl", '{"prompt": " ", "target": "b"}\n', "line 1: the prompt is empty"),
        ("a.jsonl", '{"prompt": "a", "target": "\\ud800"}\n', "line 1: the text holds half a character"),
        ("a.jsonl", '{"a": ' * 20_000, "from line 1 on: no JSON that can be read|is not JSON"),
        ("a.jsonl", '{"prompt": ' + "9" * 6000 + "}", "from line 1 on: no JSON that can be read"),
        ("a.yaml", "prompt: a\n", "is no file of probes: these are JSON lines"),
        ("a.jsonl", '{"query": "q", "choices": ["x", ""], "gold": 0}\n', "line 1: 'choices' must be a list of texts"),
        ("a.jsonl", '{"query": "q", "choices": ["x"], "gold": 1}\n', "line 1: 'gold' must say which of the 1 choices"),
        ("a.jsonl", '{"query": " ", "choices": ["x"], "gold": 0}\n', "line 1: 'query' is no question"),
        ("a.jsonl", '{"question": "q", "choices": ["x"], "answerKey": "A"}\n', "'label' and 'text', as in ARC"),
    ],
)
def test_a_bad_file_is_refused_with_the_place_of_the_error(tmp_path, name, text, message):
    with pytest.raises(LayerTracerError, match=message):
        load_probes(write(tmp_path / name, text))


def test_a_missing_file_an_empty_folder_and_wrong_bytes_are_refused_by_name(tmp_path):
    with pytest.raises(LayerTracerError, match=r"No such probe file: .*nowhere\.jsonl"):
        load_probes(tmp_path / "nowhere.jsonl")
    with pytest.raises(LayerTracerError, match=r"holds no \.jsonl, \.json or \.csv"):
        load_probes(tmp_path)
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "caf\xe9", "target": "x"}')
    with pytest.raises(LayerTracerError, match=r"latin\.jsonl is not UTF-8"):
        load_probes(tmp_path / "latin.jsonl")


# -- multiple choice -------------------------------------------------------------------------------------------------


def test_a_ceval_file_becomes_chinese_questions_of_its_subject(tmp_path):
    text = "id,question,A,B,C,D,answer,explanation\n0,法国的首都是____,里昂,巴黎,尼斯,里尔,B,因为\n"
    (probe,) = load_probes(write(tmp_path / "geography_val.csv", text))
    assert probe == Probe(
        "法国的首都是____\nA. 里昂\nB. 巴黎\nC. 尼斯\nD. 里尔\n答案：", "B", "geography_val", tuple("ABCD")
    )


def test_a_cmmlu_file_with_capital_columns_and_an_index_reads_the_same(tmp_path):
    text = ',Question,A,B,C,D,Answer\n0,"法国的首都, 是",里昂,巴黎,尼斯,里尔,B\n'
    (probe,) = load_probes(write(tmp_path / "geo.csv", text))
    assert probe == Probe("法国的首都, 是\nA. 里昂\nB. 巴黎\nC. 尼斯\nD. 里尔\n答案：", "B", "geo", (*"ABCD",))


def test_an_english_question_asks_for_a_letter_after_a_space(tmp_path):
    text = "question,A,B,answer\nWhich is red?,Blood,Grass, A \n"
    (probe,) = load_probes(write(tmp_path / "q.csv", text))
    assert probe.prompt == "Which is red?\nA. Blood\nB. Grass\nAnswer:"
    assert probe.target == " A"


@pytest.mark.parametrize(("labels", "key"), [(["A", "B", "C"], "C"), (["1", "2", "3"], "3"), ([1, 2, 3], 3)])
def test_arc_rows_with_letters_or_numbers_as_labels_are_read(labels, key):
    row = {"id": "x", "question": "Why?", "choices": {"text": ["u", "v", "w"], "label": labels}, "answerKey": key}
    (probe,) = load_probes([row])
    assert probe == Probe(
        f"Why?\n{labels[0]}. u\n{labels[1]}. v\n{labels[2]}. w\nAnswer:",
        f" {key}",
        "multiple-choice",
        tuple(f" {label}" for label in labels),
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "q", "answerKey": "A"}, "row 1: 'choices' must hold"),
        ({"question": "q", "choices": {"label": ["A", "B"], "text": ["x"]}, "answerKey": "A"}, "2 labels, 1 text"),
        ({"question": "q", "choices": {"label": ["A"], "text": ["x"]}}, "'None' is none of the labels"),
        ({"question": "q", "choices": {"label": None, "text": ["x"]}, "answerKey": "A"}, "'choices' must hold"),
        ({"question": "q", "choices": {"label": ["A"], "text": [" "]}, "answerKey": "A"}, "option 'A' is empty"),
        ({"question": " ", "choices": {"label": ["A"], "text": ["x"]}, "answerKey": "A"}, "no question"),
        ({"choices": {"label": ["A"], "text": ["x"]}, "answerKey": "A"}, "no question"),
    ],
)
def test_a_broken_arc_row_is_refused_with_its_number(row, message):
    good = {"question": "q", "choices": {"label": ["A"], "text": ["x"]}, "answerKey": "A"}
    with pytest.raises(LayerTracerError, match=message):
        load_probes([good, row])


def test_lm_eval_rows_go_on_with_their_choices(tmp_path):
    rows = [
        {"query": "The sky is", "choices": ["blue", "green"], "gold": 0},
        {"query": "草是什么颜色？", "choices": ["蓝", "绿"], "gold": "1", "task": "colours"},
    ]
    assert load_probes(jsonl(tmp_path / "a.jsonl", rows)) == [
        Probe("The sky is", " blue", "multiple-choice", (" blue", " green")),
        Probe("草是什么颜色？", "绿", "colours", ("蓝", "绿")),
    ]
    table = 'query,choices,gold\nThe sky is,"[""blue"", ""green""]",0\n'
    assert load_probes(write(tmp_path / "t.csv", table)) == [Probe("The sky is", " blue", "t", (" blue", " green"))]


def test_few_shot_puts_the_first_probes_of_a_task_before_the_others():
    rows = [{"prompt": f"{task} {n} is", "target": f" {n}", "task": task} for n in range(4) for task in "xy"]
    found = load_probes(rows, shots=2)
    assert found[0] == Probe("x 0 is 0\n\nx 1 is 1\n\nx 2 is", " 2", "x")
    assert [probe.task for probe in found] == ["x", "y", "x", "y"]
    assert len(load_probes(rows, shots=2, max_probes=3)) == 3
    with pytest.raises(LayerTracerError, match="4 examples leave none to ask"):
        load_probes(rows, shots=4)


@pytest.mark.parametrize("given", [{"prompt": "a", "target": " b"}, Probe("a", " b"), [Probe("a", " b")]])
def test_probes_are_taken_in_any_form_that_says_what_is_meant(given):
    assert as_probes(given) == [Probe("a", " b")]


def test_probes_may_be_a_file_rows_or_nothing_but_no_mixture(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", PAIRS)
    assert as_probes(path) == as_probes(str(path)) == as_probes(PAIRS) == as_probes(iter(PAIRS)) == load_probes(PAIRS)
    assert as_probes() == builtin_probes()
    with pytest.raises(LayerTracerError, match="give all in the same form"):
        as_probes([Probe("a", " b"), PAIRS[0]])
    with pytest.raises(LayerTracerError, match="not int"):
        as_probes(5)


@pytest.mark.parametrize("options", [{"seed": -1}, {"max_probes": 1.5}, {"max_prompt_tokens": 0}, {"shots": -1}])
def test_numbers_that_mean_nothing_are_refused(options):
    with pytest.raises(LayerTracerError, match="must be a whole number"):
        load_probes(PAIRS, **options)


# -- text ------------------------------------------------------------------------------------------------------------

TEXT = "The capital city of France is Paris. Rome is the capital city of Italy, and Berlin is the capital of Germany. "


@pytest.mark.parametrize("column", ["text", "content", "document"])
def test_documents_are_cut_into_a_prompt_and_the_token_that_follows(tiny_tokenizer, column):
    dataset = datasets.Dataset.from_dict({column: [TEXT * 3, TEXT[::-1] * 3]})
    probes = load_probes(dataset, tokenizer=tiny_tokenizer, max_prompt_tokens=40)
    assert len(probes) == 2
    for probe, text in zip(probes, dataset[column], strict=True):
        ids = tiny_tokenizer(text)["input_ids"]
        length = len(probe.prompt)
        assert list(probe.prompt) == ids[:length]
        assert probe.target == ids[length]
        assert length % 16 == 0
        assert 0 < length <= 40


def test_a_stream_gives_its_first_documents_and_is_read_no_further(tiny_tokenizer):
    seen = []

    def rows():
        for number in count():
            seen.append(number)
            yield {"text": TEXT}

    stream = datasets.IterableDataset.from_generator(rows)
    probes = load_probes(stream, tokenizer=tiny_tokenizer, max_probes=3)
    assert len(probes) == 3
    assert max(seen) <= 3


def test_a_named_text_column_wins_over_a_known_layout(tiny_tokenizer):
    rows = [{"prompt": TEXT, "target": "x", "body": TEXT}]
    (probe,) = load_probes(rows, tokenizer=tiny_tokenizer, text_column="body")
    assert isinstance(probe.prompt, tuple)
    with pytest.raises(LayerTracerError, match="no column 'nope'"):
        load_probes(rows, tokenizer=tiny_tokenizer, text_column="nope")


def test_text_without_a_tokenizer_or_of_another_type_is_refused(tiny_tokenizer):
    with pytest.raises(LayerTracerError, match="needs a tokenizer"):
        load_probes([{"text": TEXT}])
    with pytest.raises(LayerTracerError, match="row 1: column 'text' holds NoneType, not text"):
        load_probes([{"text": TEXT}, {"text": None}], tokenizer=tiny_tokenizer)


def test_documents_too_short_to_cut_are_left_out(tiny_tokenizer):
    assert len(load_probes([{"text": ""}, {"text": TEXT}], tokenizer=tiny_tokenizer)) == 1
    with pytest.raises(LayerTracerError, match="shorter than two tokens"):
        load_probes([{"text": ""}, {"text": "a"}], tokenizer=tiny_tokenizer)


def test_a_special_token_is_never_the_target(make_tokenizer):
    tokenizer = make_tokenizer("<s> $A </s>")
    for seed in range(30):
        (probe,) = load_probes([{"text": "One, two"}], tokenizer=tokenizer, seed=seed)
        assert probe.target not in tokenizer.all_special_ids
        assert probe.prompt[0] == tokenizer.bos_token_id


# -- token ids -------------------------------------------------------------------------------------------------------


def test_no_target_lies_where_the_label_is_masked():
    row = {"input_ids": [11, 12, 13, 14, 15, 16], "labels": [-100, -100, -100, 14, -100, 16]}
    found = {load_probes([row], seed=seed)[0] for seed in range(40)}
    assert found == {Probe((11, 12, 13), 14, "text"), Probe((11, 12, 13, 14, 15), 16, "text")}


def test_padding_on_either_side_is_left_out():
    labels = [-100, 12, 13]
    left = {"input_ids": [0, 0, 11, 12, 13], "attention_mask": [0, 0, 1, 1, 1], "labels": [-100, -100, *labels]}
    right = {"input_ids": [11, 12, 13, 0, 0], "attention_mask": [1, 1, 1, 0, 0], "labels": [*labels, -100, -100]}
    for seed in range(5):
        assert load_probes([left], seed=seed) == load_probes([right], seed=seed)
        assert 0 not in load_probes([left], seed=seed)[0].prompt


@pytest.mark.parametrize("form", [None, "numpy", "torch"])
def test_tokenized_datasets_of_any_format_give_the_same_probes(form):
    dataset = datasets.Dataset.from_dict(
        {
            "input_ids": [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]],
            "labels": [[-100, 2, 3, 4, 5], [-100, -100, -100, 9, -100]],
            "attention_mask": [[1] * 5] * 2,
        }
    )
    probes = load_probes(dataset.with_format(form), seed=3)
    assert probes == load_probes(dataset.to_list(), seed=3)
    assert probes[1] == Probe((6, 7, 8), 9, "text")
    assert all(type(token) is int for probe in probes for token in (*probe.prompt, probe.target))


def test_a_tokenized_dataset_without_a_place_for_a_target_is_refused():
    with pytest.raises(LayerTracerError, match="No probe in list"):
        load_probes([{"input_ids": [1, 2, 3], "labels": [-100, -100, -100]}])


@pytest.mark.parametrize(
    "rows",
    [
        [{"input_ids": [1, 2]}, {"other": 1}],
        [{"input_ids": [[1, 2], [3, 4]]}],
        [{"input_ids": torch.ones(2, 2)}],
        [{"input_ids": [1.5, 2.0, 3.0]}],
        [{"input_ids": [1.0, float("nan")]}],
        [{"input_ids": [1.0, float("inf")]}],
        [{"input_ids": [1, 2], "labels": [[1], [2]]}],
    ],
)
def test_token_ids_that_are_not_one_list_of_integers_are_refused(rows):
    with pytest.raises(LayerTracerError, match="is missing or not one list of integers"):
        load_probes(rows)


@given(
    ids=st.lists(st.integers(3, 99), min_size=2, max_size=150),
    longest=st.integers(1, 70),
    seed=st.integers(0, 1000),
)
def test_every_cut_is_a_stretch_of_the_document_with_its_next_token(ids, longest, seed):
    (probe,) = load_probes([{"input_ids": ids}], max_prompt_tokens=longest, seed=seed)
    length = len(probe.prompt)
    assert 1 <= length <= longest
    stretches = [tuple(ids[start : start + length + 1]) for start in range(len(ids) - length)]
    assert (*probe.prompt, probe.target) in stretches
    if longest >= 16 and len(ids) > 16:
        # Equal lengths share a batch; a ragged cut would make every probe its own batch.
        assert length % 16 == 0
        assert probe.prompt == tuple(ids[:length])


# -- samples ---------------------------------------------------------------------------------------------------------


def test_a_sample_is_seeded_ordered_and_without_repeats():
    first, again, other = (load_probes(PAIRS, max_probes=8, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    places = [PAIRS.index({"prompt": p.prompt, "target": p.target}) for p in first]
    assert places == sorted(set(places))
    assert len(first) == 8


def test_a_sample_larger_than_the_source_is_the_source():
    assert len(load_probes(PAIRS, max_probes=100)) == 20
    assert len(load_probes(max_probes=5)) == 5
    with pytest.raises(LayerTracerError, match="max_probes must be a whole number of at least 1"):
        load_probes(PAIRS, max_probes=0)


def test_reading_probes_leaves_the_global_random_state_alone(tiny_tokenizer):
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    load_probes([{"text": TEXT}] * 5, tokenizer=tiny_tokenizer, max_probes=2)
    assert (np.random.get_state()[1] == before).all()


def test_rows_that_are_no_mappings_are_refused():
    with pytest.raises(LayerTracerError, match="row 0: expected a mapping, found str"):
        load_probes(["just text"])
    with pytest.raises(LayerTracerError, match="DatasetDict, row 0"):
        load_probes(datasets.DatasetDict(train=datasets.Dataset.from_list(PAIRS)))
