"""The figures that an experiment asks for: marks of its trials, each the mean over seeds.

`figures:` of an experiment says what stands against what; here trials become marks and rows of a
table, which `study_figure` draws.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev

from hemaml.core.documents import validated
from hemaml.core.experiment import SEED
from hemaml.core.space import Dimension, Scalar
from hemaml.core.study import StudyFigure
from hemaml.notes import plus_minus
from hemaml.report.gather import Swept, Trial
from hemaml.report.tables import SIZES, Table, of_sweep


@dataclass(frozen=True, slots=True)
class Mark:
    """One point of the space with all of its seeds.

    Attributes:
        series: In words, the values that make its line.
        x: Its value of the parameter or number on the x-axis, the mean over seeds.
        y: Mean over seeds.
        spread: Their standard deviation; NaN for one.
        size: Mean of what a bubble's size shows, NaN where it shows nothing.
        num: Seeds.
    """

    series: str
    x: Scalar
    y: float
    spread: float
    size: float
    num: int


@dataclass(frozen=True)
class Study:
    """A figure of an experiment with the marks of a sweep.

    Attributes:
        figure: What is asked for.
        y: Name of the recorded number on the y-axis, or of what `figure.minus` is taken from.
        axis: The searched parameter on the x-axis; None where it is a recorded number.
        marks: By line, then along the axis.
        num_folds: Folds that the value of a trial is the mean of.
    """

    figure: StudyFigure
    y: str
    axis: Dimension | None
    marks: Sequence[Mark]
    num_folds: int

    @cached_property
    def series(self) -> dict[str, list[Mark]]:
        """The marks of each line."""
        found: dict[str, list[Mark]] = {}
        for mark in self.marks:
            found.setdefault(mark.series, []).append(mark)
        return found

    @cached_property
    def choices(self) -> list[Scalar]:
        """The values of an axis of evenly spaced places; empty for an axis of numbers."""
        if self.axis is None or self.axis.type != "categorical":
            return []
        return list(self.axis.choices)

    @property
    def is_connected(self) -> bool:
        """Whether lines join the marks: along numbers, but not from one kind to another."""
        numbers = all(
            isinstance(m.x, int | float) and not isinstance(m.x, bool) for m in self.marks
        )
        return numbers and not self.figure.size

    @property
    def span(self) -> tuple[float, float]:
        """The ends of what stands along the x-axis, the paper's points among it."""
        values = [mark.x for mark in self.marks] + [point.x for point in self.figure.paper]
        x = [self.place(value) for value in values]
        return min(x), max(x)

    @property
    def is_log(self) -> bool:
        """Whether the x-axis is logarithmic: as a range says, else where values differ tenfold."""
        if self.axis is not None:
            return self.axis.type != "categorical" and self.axis.log
        low, high = self.span
        return low > 0 and high > 10 * low

    def place(self, value: Scalar) -> float:
        """Where a value of x lies on its axis."""
        if self.choices:
            return float(self.choices.index(value))
        return float(value)  # type: ignore[arg-type]

    @property
    def ticks(self) -> list[str]:
        """The choices in words."""
        return [
            self.figure.words.get(f"{self.figure.x}={_text(value)}", _text(value))
            for value in self.choices
        ]

    def word(self, name: str) -> str:
        """What a parameter or a number is called."""
        return self.figure.words.get(name) or SIZES.get(name, name)

    @property
    def height(self) -> str:
        """What the y-axis shows, in words."""
        less = f" less {self.word(self.figure.minus)}" if self.figure.minus else ""
        return self.word(self.y) + less

    @property
    def note(self) -> str:
        """How to read it: what a mark is, and over how many seeds."""
        nums = sorted({mark.num for mark in self.marks})
        seeds = f"{nums[0]}" if len(nums) == 1 else f"{nums[0]} to {nums[-1]}"
        scored = "on validation"
        if self.num_folds > 1:
            scored += f", the mean of {self.num_folds} folds"
        told = f"One trial a mark, {scored}."
        if nums[-1] > 1:
            over = [self.word(name) for name in self.figure.over]
            repeats = f"values of {' and '.join(over)}" if over else "seeds"
            told = f"Mean over {seeds} {repeats} with their standard deviation, {scored}."
        if self.figure.size:
            told += f" The larger the bubble, the larger its {self.word(self.figure.size)}."
        if self.figure.paper:
            told += f" Diamonds: {self.figure.source}, whose splits are others."
        return told


def studies(sweep: Swept) -> list[Study]:
    """The figures of a sweep's experiment that have marks."""
    asked = [validated(StudyFigure, f, "figures") for f in sweep.document.get("figures", [])]
    found = [_study(sweep, figure) for figure in asked]
    return [study for study in found if study.marks]


def _study(sweep: Swept, figure: StudyFigure) -> Study:
    groups: dict[tuple[tuple[str, Scalar], ...], list[Trial]] = {}
    for trial in sorted(sweep.settled, key=lambda trial: trial.number):
        repeated = (SEED, *figure.over)
        key = tuple((n, trial.point.get(n)) for n in sweep.space if n not in repeated)
        groups.setdefault(key, []).append(trial)
    y = figure.y or sweep.goal.metric
    axis = sweep.space.root.get(figure.x)
    marks = [m for trials in groups.values() for m in _mark(sweep, figure, y, trials)]
    folds = len(json.loads(sweep.tracker.read_text(sweep.record.id, "split.json"))["splits"])
    study = Study(figure, y, axis, marks, folds)
    order = {text: i for i, text in enumerate(_lines(sweep, figure))}
    marks.sort(key=lambda mark: (order[mark.series], study.place(mark.x)))
    return study


def _mark(sweep: Swept, figure: StudyFigure, y: str, trials: Sequence[Trial]) -> Iterator[Mark]:
    """The mark of some trials, unless a number that it needs was not recorded."""
    values = [trial.value(y) for trial in trials]
    if figure.minus:
        values = [trial.value(y) - trial.value(figure.minus) for trial in trials]
    x: Scalar = trials[0].point.get(figure.x)
    if figure.x not in sweep.space.root:
        x = fmean(trial.value(figure.x) for trial in trials)
    size = fmean(t.value(figure.size) for t in trials) if figure.size else math.nan
    if x is None or not all(math.isfinite(value) for value in values):
        return
    if isinstance(x, float) and not math.isfinite(x):
        return
    spread = stdev(values) if len(values) > 1 else math.nan
    yield Mark(_line(figure, trials[0]), x, fmean(values), spread, size, len(values))


def _line(figure: StudyFigure, trial: Trial) -> str:
    return ", ".join(_words(figure, name, trial.point.get(name)) for name in figure.by)


def _words(figure: StudyFigure, name: str, value: Scalar) -> str:
    """A value in words: those of `words`, else the parameter and the value."""
    text = _text(value)
    return figure.words.get(f"{name}={text}") or f"{figure.words.get(name, name)} {text}"


def _text(value: Scalar) -> str:
    """A value as YAML has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _count(value: float) -> str:
    """The mean of a recorded number; of many without decimals."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.4g}"


def _at(study: Study, x: Scalar) -> str:
    """A place on the x-axis: a value of the parameter, or a recorded number."""
    return _text(x) if study.axis else _count(float(x))  # type: ignore[arg-type]


def _lines(sweep: Swept, figure: StudyFigure) -> list[str]:
    """All lines, those of the first choices first."""

    def rank(trial: Trial) -> tuple[int, ...]:
        places = []
        for name in figure.by:
            known = list(sweep.space.root[name].extremes)
            value = trial.point.get(name)
            places.append(known.index(value) if value in known else trial.number)
        return tuple(places)

    return list(dict.fromkeys(_line(figure, t) for t in sorted(sweep.settled, key=rank)))


def sweep_tables(sweep: Swept) -> list[Table]:
    """All tables of one sweep, those of the figures that it was asked for first."""
    return [*map(study_table, studies(sweep)), *of_sweep(sweep)]


def study_table(study: Study) -> Table:
    """The marks as rows."""
    sized = [study.figure.size] if study.figure.size else []
    heads = [
        *(["line"] if study.figure.by else []),
        study.word(study.figure.x),
        study.height,
        *map(study.word, sized),
        "trials",
    ]
    rows = [
        [
            *([mark.series] if study.figure.by else []),
            _at(study, mark.x),
            plus_minus(mark.y, mark.spread),
            *(_count(mark.size) for _ in sized),
            str(mark.num),
        ]
        for mark in study.marks
    ]
    for point in study.figure.paper:
        name = f"paper: {point.name}" if point.name else "paper"
        rows.append(
            [*([name] if study.figure.by else []), _at(study, point.x), f"{point.y:g}"]
            + ["–" for _ in sized]
            + ["–"]
        )
    return Table(study.figure.title, heads, rows, study.note, texts=frozenset({"line"}))
