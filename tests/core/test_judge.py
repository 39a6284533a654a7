"""Verdicts: what passes, and that nothing passes by accident."""

import math
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemaml.core.comparison import Comparison
from hemaml.core.documents import validated
from hemaml.core.errors import ConfigError
from hemaml.core.experiment import Experiment
from hemaml.core.gates import Gate
from hemaml.core.judge import Check, Evidence, Side, complete, judge

NUMBERS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([0.0, -0.0, 0.5, math.nan])
)


def compared(difference, p=0.001, *, spread=0.005):
    return Comparison(
        difference=difference, low=difference - spread, high=difference + spread, p=p,
        test="Wilcoxon signed-rank", effect=0.5, effect_name="rank-biserial", num_images=40,
        num_groups=40,
    )  # fmt: skip


def evidence(score=0.95, champion=0.94, comparison=None, **more):
    theirs = Side("models:/m/1", {"dice": champion}) if isinstance(champion, float) else champion
    comparisons = {} if comparison is None else {"dice": comparison}
    mine = Side("models:/m/2", {"dice": score, "params_total": 7000.0})
    given = {"candidate": mine, "champion": theirs, "comparisons": comparisons} | more
    return Evidence("dice", frozenset({"ece"}), **given)


def test_a_clear_gain_passes_and_noise_or_a_loss_does_not():
    gates = {"dice": Gate(better=True)}
    assert judge(gates, evidence(comparison=compared(0.01))).passed
    assert not judge(gates, evidence(comparison=compared(0.01, p=0.2))).passed
    assert not judge(gates, evidence(comparison=compared(-0.01))).passed
    noise = judge(gates, evidence(comparison=compared(0.01, p=0.2))).checks[0]
    assert "within noise" in noise.found


def test_a_score_of_which_less_is_better_turns_the_signs():
    side = Side("models:/m/2", {"ece": 0.02, "dice": 0.9})

    def passes(gate, difference):
        found = {"ece": compared(difference), "dice": compared(0.01)}
        return judge({"ece": gate}, evidence(candidate=side, comparisons=found)).passed

    assert passes(Gate(better=True), -0.01) and not passes(Gate(better=True), 0.01)
    assert passes(Gate(not_worse_by=0.02), 0.01) and not passes(Gate(not_worse_by=0.01), 0.01)


def test_not_worse_needs_the_whole_interval_within_the_margin():
    gates = {"dice": Gate(not_worse_by=0.01)}
    assert judge(gates, evidence(comparison=compared(-0.004, p=0.6))).passed
    assert not judge(gates, evidence(comparison=compared(-0.006, p=0.6))).passed


def test_floors_and_ceilings_hold_at_the_bound_and_fail_on_what_is_missing():
    better = {"comparison": compared(0.01)}
    for gate, passed in (
        (Gate(at_least=0.95), True),
        (Gate(at_least=0.9501), False),
        (Gate(at_most=0.95), True),
        (Gate(at_most=0.9499), False),
    ):
        assert judge({"dice": gate}, evidence(**better)).passed is passed
    assert judge({"params_total": Gate(at_most=7000)}, evidence(**better)).passed
    assert not judge({"ms_per_image": Gate(at_most=50)}, evidence(**better)).passed


def test_the_primary_metric_must_be_better_where_the_gates_do_not_say():
    assert complete({}, "dice") == {"dice": Gate(better=True)}
    assert complete({"dice": Gate(at_least=0.9)}, "dice")["dice"] == Gate(at_least=0.9, better=True)
    stated = {"dice": Gate(not_worse_by=0.01)}
    assert complete(stated, "dice") == stated
    assert not judge({}, evidence()).passed, "it was not compared"


def test_recorded_numbers_are_compared_as_they_are():
    theirs = Side("models:/m/1", {"dice": 0.94, "params_total": 8000.0})
    found = {"champion": theirs, "comparison": compared(0.01)}
    assert judge({"params_total": Gate(better=True)}, evidence(**found)).passed
    worse = Side("models:/m/2", {"dice": 0.95, "params_total": 8100.0})
    assert not judge({"params_total": Gate(better=True)}, evidence(candidate=worse, **found)).passed
    gate = Gate(not_worse_by=100)
    assert judge({"params_total": gate}, evidence(candidate=worse, **found)).passed


def test_no_class_and_no_group_may_lose_more_than_is_allowed():
    def passes(mine, theirs, **gate):
        found = evidence(
            candidate=Side("b", {"dice": 0.95}, by_class=mine),
            champion=Side("a", {"dice": 0.94}, by_class=theirs),
            comparison=compared(0.01),
        )
        return judge({"by_class": Gate(**gate)}, found).passed

    assert passes({"a": 0.9, "b": 0.8}, {"a": 0.91, "b": 0.7}, not_worse_by=0.02)
    assert not passes({"a": 0.88, "b": 0.9}, {"a": 0.91, "b": 0.7}, not_worse_by=0.02)
    assert not passes({"a": 0.9}, {"a": 0.9, "b": 0.7}, not_worse_by=0.02), "one is missing"
    assert not passes({"a": 0.9, "b": math.nan}, {"a": 0.9, "b": 0.7}, not_worse_by=0.02)
    assert not passes({}, {}, not_worse_by=0.02), "no class was measured"
    assert passes({"a": 0.9}, {"a": 0.9}, at_least=0.9)


def test_the_first_version_has_no_champion_to_beat_but_its_floors():
    assert judge({}, evidence(champion=None)).passed
    assert not judge({"dice": Gate(at_least=0.96)}, evidence(champion=None)).passed


def test_a_challenger_need_not_beat_the_champion_but_its_floors_hold():
    found = evidence(comparison=compared(-0.01))
    assert judge({}, found, against=False).passed
    assert not judge({"dice": Gate(at_least=0.96)}, found, against=False).passed


def test_what_makes_a_comparison_meaningless_cannot_be_forced():
    label = Check("same labels", False, "others", forceable=False)
    found = evidence(comparison=compared(-0.01), integrity=[label])
    assert not judge({}, found).forceable
    assert judge({}, evidence(comparison=compared(-0.01))).forceable


@given(st.lists(NUMBERS, min_size=8, max_size=8), st.booleans(), st.booleans())
def test_no_number_that_is_missing_or_not_finite_promotes(numbers, has_champion, has_comparison):
    """Whatever the numbers, a pass means that each of them is finite and meets its bound."""
    score, other, difference, low, high, p, a, b = numbers
    comparison = Comparison(
        difference=difference, low=low, high=high, p=p, test="t", effect=0.0, effect_name="e",
        num_images=3, num_groups=3,
    )  # fmt: skip
    found = Evidence(
        "dice",
        frozenset(),
        Side("b", {"dice": score}, {"x": a}, {"g": a}),
        Side("a", {"dice": other}, {"x": b}, {}) if has_champion else None,
        {"dice": comparison} if has_comparison else {},
    )
    gates = {
        "dice": Gate(at_least=0.1, at_most=1, better=True, not_worse_by=0.01),
        "by_class": Gate(at_least=0.1, not_worse_by=0.02),
    }
    if judge(gates, found).passed:
        assert 0.1 <= score <= 1 and a >= 0.1
        if has_champion:
            assert has_comparison and difference > 0 and 0 <= p < 0.05
            assert low >= -0.01 and b - a <= 0.02 + 1e-12
            assert all(map(math.isfinite, chain((other, b), numbers[2:6]))) or math.isnan(other)


def test_gates_of_an_experiment_are_checked_when_it_is_read():
    basic = {"name": "e", "objective": "leukemia.svm", "question": "?", "data": {}}
    read = validated(Experiment, {**basic, "gates": {"auc": {"at_least": "1e-1"}}}, "e.yaml")
    assert read.gates["auc"] == Gate(at_least=0.1)
    for gates, told in (
        ({"auc": {}}, "needs one of"),
        ({"auc": {"at_least": 0.9, "at_most": 0.1}}, "at_least <= at_most"),
        ({"auc": {"not_worse_by": -1}}, "greater than or equal to 0"),
        ({"auc": {"atleast": 1}}, "atleast"),
        ({"by_class": {"better": True}}, "`at_least` and `not_worse_by` alone"),
    ):
        with pytest.raises(ConfigError, match=told):
            validated(Experiment, {**basic, "gates": gates}, "e.yaml")
