from __future__ import annotations

import json
from pathlib import Path

import pytest

from hf_layertracer.errors import LayerTracerError
from hf_layertracer.evaluation.local_tasks import read_local_task

from .conftest import lettered


CHOICES = [
    {"query": "One, two,", "choices": ["three", "cat"], "gold": 0},
    {"query": "A cat is", "choices": ["a rose", "an animal", "nine"], "gold": 1},
]
PAIRS = [{"sentence_good": "A cat is.", "sentence_bad": "A cat are.", "paradigm": "agreement"}]


def test_ceval_is_known_by_its_val_files(ceval):
    task = read_local_task(ceval, num_fewshot=2)
    assert (task.name, task.layout) == ("my_ceval", "ceval")
    assert {subject.name: len(subject.questions) for subject in task.subjects} == {"accountant": 3, "rose_growing": 1}
    assert list(task.subjects[0].examples[0]) == ["question", "A", "B", "C", "D", "answer"]


def test_ceval_may_lie_in_folders_by_split_as_it_is_distributed(tmp_path, write_csv):
    write_csv("exam/val/law_val.csv", lettered(2))
    write_csv("exam/dev/law_dev.csv", lettered(5))
    (subject,) = read_local_task(str(tmp_path / "exam"), 5).subjects
    assert (subject.name, len(subject.questions), len(subject.examples)) == ("law", 2, 5)


@pytest.mark.parametrize("kind", ["val", "dev"])
def test_two_files_of_one_subject_are_refused_by_name(tmp_path, write_csv, kind):
    write_csv("exam/law/law_val.csv", lettered(2))
    for folder in ("law", "other"):
        write_csv(f"exam/{folder}/law_{kind}.csv", lettered(2))
    with pytest.raises(LayerTracerError) as raised:
        read_local_task(str(tmp_path / "exam"))
    for folder in ("law", "other"):
        assert str(tmp_path / "exam" / folder / f"law_{kind}.csv") in str(raised.value)


def test_cmmlu_is_known_by_its_folders(cmmlu):
    task = read_local_task(cmmlu)
    assert (task.layout, task.subjects[0].name) == ("cmmlu", "agronomy")
    assert [row["Answer"] for row in task.subjects[0].questions] == ["A", "B"]


def test_a_file_with_a_byte_order_mark_is_read(tmp_path, ceval):
    path = Path(ceval) / "accountant" / "accountant_val.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().removeprefix(b"id,"))
    text = path.read_text(encoding="utf-8-sig")
    path.write_text("\ufeff" + text, encoding="utf-8")
    path.write_text("\ufeffquestion,A,B,C,D,answer\nq,a,b,c,d,A\n", encoding="utf-8")
    assert len(read_local_task(ceval).subjects[0].questions) == 1


def test_the_first_questions_of_a_json_file_are_its_examples(write_jsonl):
    task = read_local_task(write_jsonl("arc.jsonl", CHOICES), num_fewshot=1)
    assert (task.name, task.layout) == ("arc", "choices")
    assert (task.subjects[0].examples, task.subjects[0].questions) == (CHOICES[:1], CHOICES[1:])


def test_minimal_pairs_have_no_examples(write_jsonl):
    task = read_local_task(write_jsonl("blimp.jsonl", PAIRS), num_fewshot=5)
    assert (task.layout, task.subjects[0].questions) == ("pairs", PAIRS)


def test_a_folder_of_json_files_has_a_subject_a_file(tmp_path, write_jsonl):
    for name in ("b", "a"):
        write_jsonl(f"exam/{name}.jsonl", CHOICES)
    assert [subject.name for subject in read_local_task(str(tmp_path / "exam")).subjects] == ["a", "b"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "exam.jsonl: exam holds no questions"),
        (["text"], "line 1: expected an object, found str"),
        ([{"query": "a"}], "line 1: needs query, choices and gold"),
        ([CHOICES[0], CHOICES[1] | {"gold": 3}], "line 2: gold is 3, no index of one of 3"),
        ([CHOICES[0] | {"gold": True}], "line 1: gold is True, no index of one of 2"),
        ([CHOICES[0], PAIRS[0]], "mixed in one task"),
    ],
)
def test_a_json_file_that_does_not_fit_is_refused_with_the_row(write_jsonl, rows, message):
    with pytest.raises(LayerTracerError, match=message):
        read_local_task(write_jsonl("exam.jsonl", rows))


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (CHOICES[0], '{"query": "a", "choices": ["b", "\\ud800"], "gold": 0}'),
        (PAIRS[0], '{"sentence_good": "a", "sentence_bad": "b", "paradigm": "\\ud800"}'),
    ],
)
def test_half_a_character_is_refused_with_the_line_of_the_file(tmp_path, good, bad):
    (tmp_path / "exam.jsonl").write_text(f"{json.dumps(good)}\n\n{bad}\n")
    with pytest.raises(LayerTracerError, match=r"exam.jsonl, line 3: the text holds half a character"):
        read_local_task(str(tmp_path / "exam.jsonl"))


def test_a_table_that_does_not_fit_is_refused_with_the_row(tmp_path, write_csv):
    path = str(tmp_path / "exam")
    write_csv("exam/law_val.csv", [*lettered(1), lettered(1)[0] | {"answer": "E"}])
    with pytest.raises(LayerTracerError, match=r"law_val.csv, row 2: the answer 'E' is none of A, B, C, D"):
        read_local_task(path)
    write_csv("exam/law_val.csv", [{"question": "a", "A": "b"}])
    with pytest.raises(LayerTracerError, match=r"row 1: no column B, C, D, answer"):
        read_local_task(path)
    write_csv("exam/law_val.csv", [])
    with pytest.raises(LayerTracerError, match="law holds no questions"):
        read_local_task(path)


def test_too_few_examples_are_noticed(cmmlu):
    with pytest.raises(LayerTracerError, match="agronomy holds 2 examples for a prompt with 3"):
        read_local_task(cmmlu, num_fewshot=3)


def test_a_folder_without_a_layout_is_refused(tmp_path):
    with pytest.raises(LayerTracerError, match="is no task: neither"):
        read_local_task(str(tmp_path))
