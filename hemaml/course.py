"""The course of a training whose parameters change on the way, as those of a population do.

It begins with the point that the training began with, at step -1, and has each change after it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hemaml.core.search import Change
from hemaml.core.space import Scalar
from hemaml.core.tracker import Record, Run, Tracker
from hemaml.core.types import Point

Course = list[Change]
CHANGES = "changes"
"""Tag of a run whose parameters changed on the way: how often."""
FILE = "course.json"
"""Its artifact: from which validation on which values held, and whose state it went on from."""
MANY_CHANGES = 8
"""Above so many, texts name only the first and the last values."""


def plain(course: Iterable[Change]) -> list[dict[str, Any]]:
    """A course as plain values."""
    return [asdict(change) for change in course]


def from_plain(rows: Iterable[Mapping[str, Any]]) -> Course:
    """A course from what `plain` gave."""
    return [Change(**row) for row in rows]


def log_course(run: Run, course: Course) -> None:
    """Writes a course into its run, where anything has changed."""
    if len(course) == 1:
        return
    run.log_text(json.dumps(plain(course), indent=1), FILE)
    run.set_tags({CHANGES: len(course) - 1})


def course_of(tracker: Tracker, record: Record, point: Point) -> Course:
    """The course that a run recorded; where nothing changed, that of its point.

    In a population a training may have begun in another trial, and so at another point.
    """
    if CHANGES not in record.tags:
        return [Change(-1, point)]
    return from_plain(json.loads(tracker.read_text(record.id, FILE)))


def told_values(course: Sequence[Change]) -> Point:
    """A point; a parameter that changes is told as in `0.02, 0.0167 after validation 3`.

    Validations count from 0. Empty for no course.
    """
    names = course[0].point if course else ()
    return {name: _told([(c.step, c.point[name]) for c in course]) for name in names}


def _told(values: Sequence[tuple[int, Scalar]]) -> Scalar:
    (_, first), *changes = values
    if all(value == first for _, value in changes):
        return first
    if len(changes) > MANY_CHANGES:
        return f"{first:.4g} to {changes[-1][1]:.4g} in {len(changes)} changes"
    told = [f"{value:.4g} after validation {step}" for step, value in changes]
    return ", ".join([f"{first:.4g}", *told])
