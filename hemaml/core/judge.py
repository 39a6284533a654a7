"""The verdict on a candidate: gates against evidence, without reading or writing anything.

Every check passes by a comparison that NaN fails, and a number with a gate that is missing or not
finite fails, whether or not there is a champion; so what was not measured never promotes. Against
the champion a score is `better` where the paired test tells the difference from noise (p < .05,
two-sided) and its sign is the right one, and `not_worse_by` x where the whole 95 % interval of the
difference is on the right side of x.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hemaml.core.comparison import Comparison
from hemaml.core.gates import BY_CLASS, BY_GROUP, RECORDED, Gate, Gates


@dataclass(frozen=True, slots=True)
class Check:
    """One rule and whether it held.

    Attributes:
        rule: In words.
        passed: Whether it held.
        found: What was found, in words and numbers.
        forceable: Whether `--force` may overrule it; what makes a comparison meaningless is not.
        required: Whether the verdict needs it; others are told only.
    """

    rule: str
    passed: bool
    found: str
    forceable: bool = True
    required: bool = True


@dataclass(frozen=True, slots=True)
class Side:
    """What was measured of one version.

    Attributes:
        name: `models:/name/version`.
        numbers: Scores on the held-out part, and the recorded numbers of `RECORDED`.
        by_class: The task's score of each class alone.
        by_group: The task's score of each group alone; empty where the data names none.
    """

    name: str
    numbers: Mapping[str, float]
    by_class: Mapping[str, float] = field(default_factory=dict)
    by_group: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a verdict is made from.

    Attributes:
        primary: The metric that decides where the gates do not say.
        minimized: Scores of which less is better, as of all in `RECORDED`.
        candidate: The one that would be promoted.
        champion: The one in office, or None.
        comparisons: Score to the paired comparison of the two.
        integrity: Checks that are no matter of numbers.
    """

    primary: str
    minimized: frozenset[str]
    candidate: Side
    champion: Side | None = None
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    integrity: Sequence[Check] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """All checks; see `judge`."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every required check held, and there was one."""
        return bool(self.checks) and not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        """The required checks that did not hold."""
        return tuple(check for check in self.checks if check.required and not check.passed)

    @property
    def forceable(self) -> bool:
        """Whether a person may overrule what failed."""
        return all(check.forceable for check in self.failed)


def complete(gates: Gates, primary: str) -> Gates:
    """The gates in force: the primary metric must be better where they do not set it against."""
    stated = gates.get(primary)
    if stated is not None and stated.compares:
        return gates
    asked = stated.model_dump() if stated else {}
    return {**gates, primary: Gate(**{**asked, "better": True})}


def judge(gates: Gates, evidence: Evidence, *, against: bool = True) -> Verdict:
    """Every gate, the implied ones included, put to the evidence.

    Args:
        gates: Of the candidate's experiment.
        evidence: What was measured.
        against: Whether the checks against the champion are required, or told only.
    """
    checks = [*evidence.integrity]
    for name, gate in complete(gates, evidence.primary).items():
        if name in (BY_CLASS, BY_GROUP):
            checks += _part_checks(name, gate, evidence, against)
        else:
            checks += _checks(name, gate, evidence, against)
    return Verdict(tuple(checks))


def _checks(name: str, gate: Gate, evidence: Evidence, against: bool) -> Iterator[Check]:
    value = evidence.candidate.numbers.get(name, math.nan)
    found = f"{value:.6g}" if math.isfinite(value) else "not measured"
    found += ", recorded in training" if name in RECORDED and math.isfinite(value) else ""
    if not math.isfinite(value):
        yield Check(f"{name} is measured", False, found)
    if gate.at_least is not None:
        yield Check(f"{name} at least {gate.at_least:g}", _at_least(value, gate.at_least), found)
    if gate.at_most is not None:
        yield Check(f"{name} at most {gate.at_most:g}", _at_least(-value, -gate.at_most), found)
    if not gate.compares:
        return
    wanted = ["better"] if gate.better else []
    wanted += [] if gate.not_worse_by is None else [f"not worse by {gate.not_worse_by:g}"]
    rule = f"{name} {' and '.join(wanted)} than the champion"
    if evidence.champion is None:
        yield Check(rule, True, "there is no champion yet", required=against)
    elif name in RECORDED:
        before = evidence.champion.numbers.get(name, math.nan)
        gain = before - value
        passed = math.isfinite(gain) and (gain > 0 or not gate.better)
        passed = passed and (gate.not_worse_by is None or gain >= -gate.not_worse_by)
        told = f"{value:.6g} after {before:.6g}, each as recorded in its training"
        yield Check(rule, passed, told, required=against)
    else:
        comparison = evidence.comparisons.get(name)
        sign = -1 if name in evidence.minimized else 1
        told = "not compared" if comparison is None else in_words(comparison)
        passed = comparison is not None and _holds(gate, comparison, sign)
        yield Check(rule, passed, told, required=against)


def _holds(gate: Gate, found: Comparison, sign: int) -> bool:
    """Whether a paired difference, of which `sign` is the good direction, passes."""
    numbers = (found.difference, found.low, found.high, found.p)
    if not all(map(math.isfinite, numbers)) or not 0 <= found.p <= 1:
        return False
    worst = min(sign * found.low, sign * found.high)
    better = not found.within_noise and sign * found.difference > 0
    not_worse = gate.not_worse_by is None or worst >= -gate.not_worse_by
    return (better or not gate.better) and not_worse


def _part_checks(name: str, gate: Gate, evidence: Evidence, against: bool) -> Iterator[Check]:
    """The same bound for each class or group alone; the worst one is told."""
    kind = name.removeprefix("by_")
    mine: Mapping[str, float] = getattr(evidence.candidate, name)
    if gate.at_least is not None:
        yield _worst(f"each {kind} at least {gate.at_least:g}", mine, gate.at_least)
    elif not mine or not all(map(math.isfinite, mine.values())):
        yield _worst(f"each {kind} is measured", mine, -math.inf)
    if gate.not_worse_by is None:
        return
    rule = f"no {kind} loses more than {gate.not_worse_by:g} to the champion"
    if evidence.champion is None:
        yield Check(rule, True, "there is no champion yet", required=against)
        return
    theirs: Mapping[str, float] = getattr(evidence.champion, name)
    names = sorted({*mine, *theirs})
    changes = {key: mine.get(key, math.nan) - theirs.get(key, math.nan) for key in names}
    yield _worst(rule, changes, -gate.not_worse_by, required=against)


def _worst(rule: str, values: Mapping[str, float], floor: float, *, required: bool = True) -> Check:
    if not values:
        return Check(rule, False, "none was measured; remove the gate", required=required)
    passed = all(_at_least(value, floor) for value in values.values())
    name, value = min(values.items(), key=lambda item: (math.isfinite(item[1]), item[1]))
    told = f"{value:.4g}" if math.isfinite(value) else "not measured"
    return Check(rule, passed, f"{name}: {told}", required=required)


def _at_least(value: float, floor: float) -> bool:
    return math.isfinite(value) and value >= floor


def in_words(found: Comparison) -> str:
    """A comparison in one line: difference, interval, test, effect, and whether it is noise."""
    told = "; within noise" if found.within_noise else ""
    return (
        f"{found.difference:+.4f} (95 % {found.low:+.4f} to {found.high:+.4f}), {found.test} "
        f"p = {found.p:.2g}, {found.effect_name} {found.effect:+.2f}{told}"
    )
