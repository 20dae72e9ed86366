"""The probes of the package: a measurement relies on every single one."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from hf_layertracer.probes import builtin_probes, load_probes


# -- mixed -----------------------------------------------------------------------------------------------------------


def test_the_mixed_probes_have_tasks_and_no_duplicates():
    probes = builtin_probes()
    assert load_probes() == load_probes("builtin") == probes
    assert len({(probe.prompt, probe.target) for probe in probes}) == len(probes) >= 100
    assert len({probe.task for probe in probes}) >= 4
    assert all(probe.prompt.strip() and probe.target.strip() for probe in probes)


def test_the_english_targets_of_the_mixed_probes_begin_with_a_space():
    # " Tokyo" is one token after "Japan is"; "Tokyo" would ask for "isTokyo".
    for probe in builtin_probes():
        if probe.task.endswith("_en"):
            assert probe.target.startswith(" "), probe


# -- structured ------------------------------------------------------------------------------------------------------

STRUCTURED = builtin_probes("builtin:structured")
PAIRS = list(zip(STRUCTURED[::2], STRUCTURED[1::2], strict=True))


def test_the_structured_probes_are_500_single_words_of_two_tasks():
    assert load_probes("builtin:structured") == load_probes(Path("builtin:structured")) == STRUCTURED
    assert Counter(probe.task for probe in STRUCTURED) == {"antonym": 250, "synonym": 250}
    assert all(re.fullmatch(" [a-z]+", probe.target) for probe in STRUCTURED)
    assert not any(probe.prompt.endswith(" ") or "{" in probe.prompt for probe in STRUCTURED)


def test_no_two_structured_probes_ask_the_same():
    assert len({probe.prompt for probe in STRUCTURED}) == 500
    for task in ("antonym", "synonym"):
        # Each word stands in one pair of its relation, so no prompt has a second right answer among the words.
        answers = [probe.target for probe in STRUCTURED if probe.task == task]
        assert len(set(answers)) == len(answers)
    assert len({frozenset((one.target, other.target)) for one, other in PAIRS}) == 250


def test_each_pair_is_asked_in_both_directions_by_templates_that_hold_neither_answer():
    templates = Counter()
    for one, other in PAIRS:
        assert one.task == other.task
        for probe, word in ((one, other.target.strip()), (other, one.target.strip())):
            words = re.findall("[a-z]+", probe.prompt)
            assert words.count(word) == 1, probe
            assert probe.target.strip() not in words, probe
            templates[probe.task, re.sub(rf"\b{word}\b", "{}", probe.prompt)] += 1
    assert len(templates) == 8
    assert set(templates.values()) <= {62, 63}
