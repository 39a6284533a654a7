"""Where a row was measured otherwise than the paper's, as on less: found in what was run."""

from collections.abc import Mapping
from statistics import median
from typing import Any

from hemaml.core.dataset import Dataset
from hemaml.core.documents import canonical_json
from hemaml.reproduce.table import PaperTable, RowPlan

LOOKED_AT = 16
"""Images whose sides are taken, evenly spaced: the others are not decoded."""
SMALLER = 0.95
"""Of the paper's pixels; images vary by a little in their sides."""
ROUNDING = 0.01
"""Of all images: two shares that differ by less are the same, but for rounding."""


def differences(table: PaperTable, row: RowPlan, split: Mapping[str, Any]) -> list[str]:
    """What differs from the paper's setting, in words; empty where nothing is known to.

    Args:
        table: What the paper did.
        row: What was run.
        split: The record of the outer splits; see `hemaml.data.splits.split_record`.
    """
    parts = split["splits"][0]
    images = sum(part["items"] for part in parts.values())
    told = _of_plan(row) + _of_data(table, data_of(row), images)
    share = parts["train"]["items"] / images
    if table.train is not None and round(abs(table.train - share), 6) > ROUNDING:
        told.append(f"trained on {share:.0%} of the images instead of {table.train:.0%}")
    return told


def differences_of_times(table: PaperTable, row: RowPlan, setting: str) -> list[str]:
    """The same of a table of times; `setting` says in words where they were taken."""
    data = data_of(row)
    return [*_of_plan(row), *_of_data(table, data, len(data)), setting]


def _of_plan(row: RowPlan) -> list[str]:
    changed = row.changed.items()
    return [f"{name} {_text(ours)} instead of {_text(theirs)}" for name, (ours, theirs) in changed]


def _of_data(table: PaperTable, data: Dataset, images: int) -> list[str]:
    told = []
    if data.name != table.data.name:
        told.append(f"data {data.name} ({data.source}) instead of {table.data.name}")
    if images != table.data.images:
        told.append(f"{images:,} images instead of {table.data.images:,}")
    if table.data.sides is not None:
        height, width = _sides(data)
        if height * width < SMALLER * table.data.sides[0] * table.data.sides[1]:
            theirs = " x ".join(map(str, table.data.sides))
            told.append(f"images of {height} x {width} pixels instead of {theirs}")
    return told


def _sides(data: Dataset) -> tuple[int, int]:
    """Median height and width of some images."""
    step = max(1, len(data) // LOOKED_AT)
    shapes = [data.images[index].shape for index in range(0, len(data), step)][:LOOKED_AT]
    return round(median(s[0] for s in shapes)), round(median(s[1] for s in shapes))


_last: dict[str, Dataset] = {}
"""The data set looked at last, which rows of a table mostly share."""


def data_of(row: RowPlan) -> Dataset:
    """The data set of a row; read once for rows that share it."""
    section = row.plan.experiment.data
    key = canonical_json(section)
    if key not in _last:
        found = row.plan.objective.task.read(section)
        _last.clear()
        _last[key] = found
    return _last[key]


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
