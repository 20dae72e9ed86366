"""The statistics, against definitions written out in loops, tables in books and simulated coverage."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies

from hf_layertracer.errors import LayerTracerError
from hf_layertracer.evaluation.intervals import critical_value, tango, wilson
from hf_layertracer.evaluation.statistics import (
    accuracy,
    average_relative_improvement,
    exact_paired_test,
    forgetting,
    learning,
    paired_difference,
    paired_difference_over_seeds,
)


def clustered_error(differences: list[float], groups: list[str], weights: list[float]) -> float:
    """Miller's equation 4, over all pairs of items of one cluster, with the correction for few clusters."""
    total = math.fsum(weights)
    mean = math.fsum(w * d for w, d in zip(weights, differences, strict=True)) / total
    variance = 0.0
    for i, j in itertools.product(range(len(differences)), repeat=2):
        if groups[i] == groups[j]:
            variance += weights[i] * (differences[i] - mean) * weights[j] * (differences[j] - mean)
    clusters = len(set(groups))
    return math.sqrt(max(0.0, variance) * clusters / (clusters - 1)) / total


ITEMS = strategies.lists(
    strategies.tuples(
        strategies.floats(-5, 5), strategies.floats(-5, 5), strategies.sampled_from("abc"), strategies.floats(0.1, 9)
    ),
    min_size=2,
    max_size=30,
).filter(lambda items: len({item[2] for item in items}) > 1)


@settings(max_examples=60, deadline=None)
@given(items=ITEMS)
def test_a_clustered_error_is_that_of_all_pairs_within_clusters(items):
    first, second, groups, weights = map(list, zip(*items, strict=True))
    result = paired_difference(first, second, groups, weights)
    differences = [a - b for a, b in zip(first, second, strict=True)]
    assert result.stderr == pytest.approx(clustered_error(differences, groups, weights), abs=1e-6)
    assert result.value == pytest.approx(np.average(differences, weights=weights), abs=1e-9)
    assert (result.n, result.clusters) == (len(items), len(set(groups)))


def test_without_groups_the_error_is_the_textbooks():
    first, second = [0.1, 0.7, 0.4, 0.9], [0.3, 0.2, 0.4, 0.1]
    differences = np.subtract(first, second)
    result = paired_difference(first, second)
    assert result.stderr == pytest.approx(differences.std(ddof=1) / 2)
    assert result.high - result.value == pytest.approx(3.18245 * result.stderr, rel=1e-5)  # t, 3 degrees of freedom
    assert paired_difference(first, second, ["one"] * 4) == result


@pytest.mark.parametrize(
    ("level", "degrees", "value"),
    [(0.95, 1, 12.7062), (0.95, 2, 4.30265), (0.95, 7, 2.36462), (0.99, 10, 3.16927), (0.9, 30, 1.69726)],
)
def test_critical_values_are_those_of_the_tables(level, degrees, value):
    assert critical_value(level, degrees) == pytest.approx(value, rel=1e-5)


def test_many_degrees_of_freedom_are_normal():
    assert critical_value(0.95, 10**6) == pytest.approx(1.95996, rel=1e-3)


def test_no_changed_answer_does_not_prove_that_nothing_changed():
    result = paired_difference([1, 0, 1, 1], [1, 0, 1, 1])
    assert result.stderr == 0
    assert result.low < -0.2
    assert result.high > 0.2
    assert not result.excludes_zero


@pytest.mark.parametrize(("better", "worse", "n"), [(9, 2, 30), (0, 4, 12), (40, 38, 300), (5, 0, 5)])
def test_the_interval_of_a_paired_difference_ends_where_the_score_test_rejects(better, worse, n):
    def statistic(difference: float) -> float:
        # The likelihood under this difference, maximised over a grid of the second's share.
        share = np.linspace(max(0, -difference), (1 - difference) / 2, 200001)[1:-1]
        with np.errstate(divide="ignore"):
            likelihood = better * np.log(share + difference) if better else 0.0
            likelihood = likelihood + (worse * np.log(share) if worse else 0.0)
            likelihood = likelihood + (n - better - worse) * np.log(1 - 2 * share - difference)
        variance = n * (2 * share[likelihood.argmax()] + difference * (1 - difference))
        return (better - worse - n * difference) / math.sqrt(variance)

    low, high = tango(better, worse, n, 0.95)
    assert low <= (better - worse) / n <= high
    assert statistic(low) == pytest.approx(1.96, abs=0.01)
    if high < 1:
        assert statistic(high) == pytest.approx(-1.96, abs=0.01)


def test_score_intervals_have_their_closed_forms():
    assert tango(0, 0, 12, 0.95) == pytest.approx((-(1.96**2) / (12 + 1.96**2), 1.96**2 / (12 + 1.96**2)), rel=1e-3)
    # Wilson: both ends solve (p - end)² = z² end (1 - end) / n.
    for end in wilson(0.2, 15, 1.96):
        assert (0.2 - end) ** 2 == pytest.approx(1.96**2 * end * (1 - end) / 15)
    assert wilson(0.0, 10, 1.96)[0] == 0


@pytest.mark.parametrize("n", [12, 40])
def test_intervals_for_few_items_cover_as_often_as_they_say(n):
    rng, truth, hits, covered = np.random.default_rng(n), 0.15, 0, 0
    for _ in range(1000):
        draws = rng.random(n)
        first = (draws < 0.65).astype(float)
        second = (draws < 0.5).astype(float)
        result = paired_difference(first, second)
        hits += result.low <= truth <= result.high
        level = accuracy(first)
        covered += level.low <= 0.65 <= level.high
    assert hits >= 930
    assert covered >= 930


def test_intervals_of_few_clusters_cover_where_independent_items_would_not():
    rng, clustered, naive = np.random.default_rng(0), 0, 0
    groups = [str(index // 20) for index in range(120)]
    for _ in range(500):
        differences = np.repeat(rng.normal(0, 1, 6), 20) + rng.normal(0, 1, 120)
        with_groups = paired_difference(differences, np.zeros(120), groups)
        without = paired_difference(differences, np.zeros(120))
        clustered += with_groups.low <= 0 <= with_groups.high
        naive += without.low <= 0 <= without.high
    assert clustered >= 460
    assert naive < 350


@pytest.mark.parametrize(
    ("first", "second"),
    [([1, 1, 1, 0, 1], [0, 0, 1, 0, 0]), ([0.3, 0.1, 0.9, 0.2], [0.1, 0.4, 0.8, 0.2]), ([1, 1], [1, 1])],
)
def test_the_exact_test_counts_all_ways_the_coins_can_fall(first, second):
    signs = [1 if a > b else -1 for a, b in zip(first, second, strict=True) if a != b]
    falls = [abs(sum(fall)) >= abs(sum(signs)) for fall in itertools.product((1, -1), repeat=len(signs))]
    result = exact_paired_test(first, second)
    assert result.p_value == pytest.approx(sum(falls) / len(falls))
    assert result.better + result.worse + result.ties == len(first)


def test_the_exact_test_is_exact_for_thousands_of_items():
    result = exact_paired_test([1] * 3000 + [0] * 2800, [0] * 3000 + [1] * 2800)
    normal = math.erfc((200 - 1) / math.sqrt(5800) / math.sqrt(2))
    assert result.p_value == pytest.approx(normal, rel=1e-2)
    assert exact_paired_test([1] * 5000, [0] * 5000).p_value < 1e-300


def test_accuracy_in_clusters_has_a_wider_interval():
    correct = [1] * 20 + [0] * 10 + [1] * 20 + [0] * 10
    alone, together = accuracy(correct), accuracy(correct, [str(index // 10) for index in range(60)])
    assert alone.value == together.value == pytest.approx(2 / 3)
    assert together.low < alone.low
    assert together.high > alone.high


def test_average_relative_improvement_is_the_papers():
    assert average_relative_improvement([29.40, 29.55], [25.39, 25.55]) == pytest.approx(0.1572, abs=1e-4)


def test_learning_and_forgetting_are_positive_where_their_names_say():
    before, after = [2.0, 2.1, 1.9], [1.0, 1.2, 0.9]
    assert learning(after, before, lower_is_better=True).value == pytest.approx(2.9 / 3)
    assert forgetting(after, before, lower_is_better=True).value == pytest.approx(-2.9 / 3)
    assert learning([1, 1, 0], [0, 0, 0]).value == pytest.approx(2 / 3)
    assert forgetting([0, 0, 0], [1, 1, 0]).value == pytest.approx(2 / 3)


def test_seeds_and_items_are_separate_sources_of_variance():
    rng = np.random.default_rng(0)
    baseline = rng.normal(size=50)
    same_seeds = np.tile(baseline + rng.normal(size=50), (3, 1))
    result = paired_difference_over_seeds(same_seeds, baseline)
    assert result.seed_stderr == pytest.approx(0, abs=1e-12)
    assert result.item_stderr == pytest.approx(paired_difference(same_seeds[0], baseline).stderr)
    same_items = baseline + np.array([[0.1], [0.5], [0.3]])
    result = paired_difference_over_seeds(same_items, baseline)
    assert result.item_stderr == pytest.approx(0, abs=1e-12)
    assert result.seed_stderr == pytest.approx(0.2 / math.sqrt(3))
    assert result.high - result.value == pytest.approx(critical_value(0.95, 2) * result.seed_stderr)


def test_intervals_over_seeds_and_items_cover_as_often_as_they_say():
    rng, hits = np.random.default_rng(1), 0
    for _ in range(500):
        scores = rng.normal(size=(4, 1)) * 0.3 + rng.normal(size=(1, 30)) + rng.normal(size=(4, 30)) * 0.5
        result = paired_difference_over_seeds(scores, np.zeros(30))
        hits += result.low <= 0 <= result.high
    assert hits >= 460


def test_one_seed_has_no_error_of_seeds():
    result = paired_difference_over_seeds([[1, 0, 1]], [0, 0, 1])
    single = paired_difference([1, 0, 1], [0, 0, 1])
    assert result.seed_stderr is None
    assert (result.low, result.high, result.seeds) == (single.low, single.high, 1)


def test_one_item_says_nothing_about_its_error():
    result = paired_difference([1.5], [1.0])
    assert (result.value, result.stderr, result.low, result.high) == (0.5, None, None, None)
    assert not result.excludes_zero


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_difference([1, 0], [1]), "no pairs"),
        (lambda: paired_difference([], []), "no items"),
        (lambda: paired_difference([1, float("nan")], [1, 0]), "no finite number"),
        (lambda: paired_difference([1, 0], [1, 0], ["a"]), "1 groups for 2 items"),
        (lambda: paired_difference([1, 0], [1, 0], weights=[0, 0]), "not all of them 0"),
        (lambda: paired_difference_over_seeds([[1, 0]], [[1, 0, 1]]), "no pairs"),
        (lambda: accuracy([0.5]), "only 0 and 1"),
        (lambda: average_relative_improvement([1], [0]), "above 0"),
    ],
)
def test_scores_that_cannot_be_compared_are_refused(call, message):
    with pytest.raises(LayerTracerError, match=message):
        call()
