"""Verdicts: what passes, and that nothing passes by accident."""

import math

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


GATES = {
    "dice": Gate(at_least=0.1, at_most=1, better=True, not_worse_by=0.01),
    "ece": Gate(at_most=0.1, not_worse_by=0.02),
    "params_total": Gate(at_most=1e6, better=True),
    "ms_per_image": Gate(not_worse_by=5),
    "by_class": Gate(at_least=0.1, not_worse_by=0.02),
    "by_group": Gate(not_worse_by=0.02),
}
BAD = st.sampled_from([math.nan, math.inf, -math.inf, None])
"""What a number may be by accident; None: it is missing."""
SIDE = {"dice": 0.95, "ece": 0.02, "params_total": 7000.0, "ms_per_image": 9.0}


def good(**changes):
    """All numbers of evidence that passes `GATES`, by place and name; some of them changed."""
    numbers = {("candidate", name): value for name, value in SIDE.items()}
    numbers |= {("champion", name): value * 1.1 for name, value in SIDE.items()}
    for place in ("by_class", "by_group"):
        numbers |= {(place, "a"): 0.9, (place, "b"): 0.8}
        numbers |= {(f"champion {place}", "a"): 0.9, (f"champion {place}", "b"): 0.8}
    for name, difference in (("dice", 0.02), ("ece", -0.01)):
        fields = {"difference": difference, "low": difference - 0.005, "high": difference + 0.005}
        numbers |= {(name, field): value for field, value in {**fields, "p": 0.001}.items()}
    return numbers | changes.get("numbers", {})


def part(numbers, place):
    return {n: v for (where, n), v in numbers.items() if where == place and v is not None}


def evidence_of(numbers, *, champion=True):
    sides = [
        Side(name, *(part(numbers, place) for place in places))
        for name, places in (
            ("b", ("candidate", "by_class", "by_group")),
            ("a", ("champion", "champion by_class", "champion by_group")),
        )
    ]
    comparisons = {
        name: Comparison(
            **part(numbers, name),
            test="t",
            effect=0.5,
            effect_name="e",
            num_images=40,
            num_groups=40,
        )  # fmt: skip
        for name in ("dice", "ece")
        if len(part(numbers, name)) == 4
    }
    minimized = frozenset({"ece"})
    if not champion:
        return Evidence("dice", minimized, sides[0])
    return Evidence("dice", minimized, *sides, comparisons)


DECIDING = [
    key for key in good() if key not in (("champion", "dice"), ("champion", "ece"))
]  # fmt: skip
"""What a verdict rests on; against the champion scores go by their comparison."""
OWN = [key for key in DECIDING if key[0] in ("candidate", "by_class", "by_group")]


def test_the_good_evidence_passes():
    assert judge(GATES, evidence_of(good())).passed
    assert judge(GATES, evidence_of(good(), champion=False)).passed
    assert judge({}, evidence_of(good())).passed


@given(st.dictionaries(st.sampled_from(DECIDING), BAD, min_size=1, max_size=4))
def test_no_number_that_is_missing_or_not_finite_promotes(broken):
    """One bad number anywhere is enough, whatever else is good."""
    assert not judge(GATES, evidence_of(good(numbers=broken))).passed


@given(st.dictionaries(st.sampled_from(OWN), BAD, min_size=1, max_size=4))
def test_nor_makes_it_the_first_champion_or_a_challenger(broken):
    """A class that is missing is seen beside the champion's; else a task names all, with NaN."""
    broken = {
        key: math.nan if value is None and key[0] != "candidate" else value
        for key, value in broken.items()
    }
    numbers = good(numbers=broken)
    assert not judge(GATES, evidence_of(numbers, champion=False)).passed
    assert not judge(GATES, evidence_of(numbers), against=False).passed


@given(BAD, st.booleans())
def test_without_any_gate_the_primary_metric_must_be_measured(bad, champion):
    numbers = good(numbers={("candidate", "dice"): bad})
    assert not judge({}, evidence_of(numbers, champion=champion)).passed


@given(st.sampled_from(["by_class", "by_group", "champion by_class", "champion by_group"]))
def test_an_empty_group_or_class_never_passes(place):
    nothing = dict.fromkeys([key for key in good() if key[0] == place])
    assert not judge(GATES, evidence_of(good(numbers=nothing))).passed


@given(st.floats(0, 1), st.booleans())
def test_equal_scores_are_not_better(score, stated):
    """As the tests of pairs tell of a model and itself: no difference, p of 1."""
    equal = {("dice", field): 0.0 for field in ("difference", "low", "high")} | {("dice", "p"): 1.0}
    equal |= {("candidate", "dice"): score, ("champion", "dice"): score}
    found = evidence_of(good(numbers=equal))
    assert not judge({"dice": Gate(better=True)} if stated else {}, found).passed
    sizes = {("champion", "params_total"): SIDE["params_total"]}
    assert not judge(GATES, evidence_of(good(numbers=sizes))).passed


@given(st.dictionaries(st.sampled_from(list(good())), NUMBERS, max_size=6))
def test_whatever_passes_meets_every_bound(changed):
    numbers = good(numbers=changed)
    if not judge(GATES, evidence_of(numbers)).passed:
        return
    dice = part(numbers, "dice")
    assert 0.1 <= numbers["candidate", "dice"] <= 1 and numbers["candidate", "ece"] <= 0.1
    assert dice["difference"] > 0 and 0 <= dice["p"] < 0.05
    assert min(dice["low"], dice["high"]) >= -0.01
    assert max(numbers["ece", "low"], numbers["ece", "high"]) <= 0.02
    assert numbers["candidate", "params_total"] < numbers["champion", "params_total"]
    for place in ("by_class", "by_group"):
        mine, theirs = part(numbers, place), part(numbers, f"champion {place}")
        assert all(theirs[name] - value <= 0.02 + 1e-12 for name, value in mine.items())
    assert all(math.isfinite(numbers[key]) for key in DECIDING)


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
