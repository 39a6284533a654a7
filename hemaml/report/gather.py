"""A sweep read back from the record, as the report needs it.

Only the record is read, never the code of the objective, so that a sweep of last year can be
reported after its model has changed or gone.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hemaml.core import settings
from hemaml.core.documents import parse_yaml, validated
from hemaml.core.space import Dimension, Scalar, Space
from hemaml.core.sweep import Goal
from hemaml.core.tracker import Record
from hemaml.core.types import Point
from hemaml.course import course_of, told_values
from hemaml.record import PARTS
from hemaml.tracking.mlflow_tracker import MlflowTracker
from hemaml.tracking.views import run_page, ui_address

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial of a search.

    Attributes:
        number: In the study.
        run_id: Its run.
        outcome: How it ended.
        reason: Where it did not finish.
        point: What was searched; parameters whose condition did not hold are left out.
        metrics: Last value of each.
        seconds: Of training; 0 where the result of an equal trial was taken over.
        on_gpu: Whether it trained on one.
    """

    number: int
    run_id: str
    outcome: str
    reason: str
    point: Point
    changed: bool
    metrics: Mapping[str, float]
    seconds: float
    on_gpu: bool

    def value(self, metric: str) -> float:
        """A metric of the finished trial; else its last validation, NaN where there was none."""
        if self.outcome == "finished":
            return self.metrics.get(metric, math.nan)
        return self.metrics.get(f"val/{metric}", math.nan)


@dataclass(frozen=True)
class Swept:
    """A sweep with all its trials.

    Attributes:
        record: The sweep's own run.
        tracker: Where it is.
        document: The experiment file in force, as plain values.
        space: What was searched.
        trials: By number.
        seeds: The confirmation runs that finished.
        by_class: Winner's score of each class; empty where none was recorded.
        by_group: Winner's score of each patient, case or slide.
    """

    record: Record
    tracker: MlflowTracker
    document: Mapping[str, Any]
    space: Space
    trials: Sequence[Trial]
    seeds: Sequence[Record]
    by_class: Mapping[str, float]
    by_group: Mapping[str, float]

    @property
    def name(self) -> str:
        """The sweep's id."""
        return self.record.tags["sweep"]

    @property
    def task(self) -> str:
        """Name of its task."""
        return self.tracker.task

    @cached_property
    def goals(self) -> tuple[Goal, ...]:
        """What it optimised; the first decides."""
        return tuple(Goal(**goal) for goal in json.loads(self.record.tags["goals"]))

    @property
    def goal(self) -> Goal:
        """What decides."""
        return self.goals[0]

    @property
    def sign(self) -> int:
        """1 where more of the goal is better, else -1."""
        return 1 if self.goal.direction == "maximize" else -1

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(json.loads(self.record.tags["classes"]))

    @property
    def paper(self) -> Mapping[str, Any]:
        """`source` and the paper's figures; may be empty."""
        return self.document.get("paper") or {}

    @cached_property
    def finished(self) -> tuple[Trial, ...]:
        """Trials with a value of the goal, the best first."""
        done = [
            trial
            for trial in self.trials
            if trial.outcome == "finished" and math.isfinite(trial.value(self.goal.metric))
        ]
        return tuple(sorted(done, key=lambda t: -self.sign * t.value(self.goal.metric)))

    @cached_property
    def settled(self) -> tuple[Trial, ...]:
        """The same where each had one value a parameter; of a population none.

        There a score says nothing of the values that its trial began with, and the few that kept
        theirs are those that did well.
        """
        return () if any(trial.changed for trial in self.trials) else self.finished

    @property
    def hours(self) -> float:
        """Hours of training, of all trials and confirmation seeds together."""
        return (sum(t.seconds for t in self.trials) + sum(map(_seconds, self.seeds))) / HOUR_S

    @property
    def gpu_hours(self) -> float:
        """The part of `hours` that was spent on GPUs; trials that share one count each."""
        trials = sum(t.seconds for t in self.trials if t.on_gpu)
        seeds = sum(_seconds(seed) for seed in self.seeds if _on_gpu(seed))
        return (trials + seeds) / HOUR_S

    def page(self, run_id: str) -> str:
        """Address of a run in the MLflow UI."""
        return f"{ui_address(self.tracker.uri)}/{run_page(self.tracker, run_id)}"


def read_sweep(record: Record) -> Swept:
    """All that is recorded of a sweep, finished or not.

    Raises:
        ConfigError: The stored search space cannot be read.
        StoreError: The store failed.
    """
    task = record.tags["objective"].partition(".")[0]
    tracker = MlflowTracker(settings.tracking_uri(), task)
    document = parse_yaml(tracker.read_text(record.id, "experiment.yaml"), "experiment.yaml")
    ranges = parse_yaml(tracker.read_text(record.id, "search_space.yaml"), "search_space.yaml")
    space = validated(Space, ranges, "search_space.yaml")
    trials = [
        _trial(tracker, run, space) for run in tracker.find({"kind": "trial"}, parent=record.id)
    ]
    seeds = tracker.find({"kind": "confirm", "outcome": "finished"}, parent=record.id)
    path = f"winner/{PARTS}"
    known = bool(seeds) and tracker.has_artifact(record.id, path)  # else of an earlier winner
    parts = json.loads(tracker.read_text(record.id, path)) if known else {}
    return Swept(
        record=record,
        tracker=tracker,
        document=document,
        space=space,
        trials=sorted(trials, key=lambda trial: trial.number),
        seeds=seeds,
        by_class=parts.get("by_class", {}),
        by_group=parts.get("by_group", {}),
    )


def _trial(tracker: MlflowTracker, run: Record, space: Space) -> Trial:
    course = course_of(tracker, run, {})
    changed = len(course) > 1
    return Trial(
        number=int(run.tags["trial"]),
        run_id=run.id,
        outcome=run.tags.get("outcome", "running"),
        reason=run.tags.get("reason", ""),
        point=told_values(course) if changed else _point(run.params, space),
        changed=changed,
        metrics=run.metrics,
        seconds=_seconds(run),
        on_gpu=_on_gpu(run),
    )


def _seconds(run: Record) -> float:
    if run.tags.get("reused_from"):
        return 0.0
    lasted = max(run.end_ms - run.start_ms, 0) / 1000 if run.end_ms else 0.0
    return run.metrics.get("train_s", lasted)


def _on_gpu(run: Record) -> bool:
    return run.tags.get("device", "").startswith("cuda")


def _point(params: Mapping[str, str], space: Space) -> Point:
    """What was searched among the recorded parameters, as values of the space."""
    point: Point = {}
    for name, dimension in space.root.items():
        if name in params and dimension.active(point):
            point[name] = _value(dimension, params[name])
    return point


def _value(dimension: Dimension, text: str) -> Scalar:
    """A recorded parameter; a choice 9 was written down as 9.0 where the parameter is a float."""
    if dimension.type != "categorical":
        return float(text) if dimension.type == "float" else int(float(text))
    for choice in dimension.choices:
        if str(choice) == text:
            return choice
    numbers = [c for c in dimension.choices if isinstance(c, int | float) and str(float(c)) == text]
    return numbers[0] if numbers else text
