"""All scores with their intervals, and those of each patient, case or slide where there are any."""

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from hemaml.explain import Picture
from hemaml.explain.canvas import INK, MUTED, RULE, new_page, shorten, to_png, write
from hemaml.explain.outcome import HEAD, MARGIN, Outcome, head, html_page, number
from hemaml.ops.classification_scores import (
    bootstrap_intervals,
    classification_scores,
    group_scores,
)
from hemaml.ops.resampling import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from plotly.graph_objects import Table

TITLES = {
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall (sensitivity)",
    "f1": "F1",
    "auc": "AUC",
    "specificity": "Specificity",
    "balanced_accuracy": "Balanced accuracy",
    "ece": "Expected calibration error",
    "log_loss": "Log loss",
}
SCORE_HEAD = ["score", "value", "95 % interval"]
MOST_GROUPS = 60
"""Rows of groups in the PNG; the page has all."""
# Inches: a line, the first column of each table, further ones; the page at least.
LINE, NAMES, COLUMN, WIDTH = 0.3, 2.4, 1.25, 6.8

Rows = list[list[str]]


def picture(outcome: Outcome) -> Picture:
    """The table of scores and that of groups, as `scores`."""
    scores, groups = score_rows(outcome), group_rows(outcome)
    return Picture("scores", png=_png(outcome, scores, groups), html=_html(outcome, scores, groups))


def score_rows(outcome: Outcome) -> Rows:
    """Title, value and interval of each score."""
    scores = classification_scores(outcome.probabilities, outcome.labels)
    found = bootstrap_intervals(outcome.probabilities, outcome.labels, outcome.data.groups)
    return [[TITLES[name], number(scores[name]), _told(found[name])] for name in TITLES]


def group_head(outcome: Outcome) -> list[str]:
    """Column titles of `group_rows`."""
    shown = [f"p({shorten(outcome.classes[1], most=12)})"] if len(outcome.classes) == 2 else []
    return ["group", "images", "true class", "right", *shown]


def group_rows(outcome: Outcome) -> Rows:
    """One row a group, the worst first: images, classes, share right, mean probability."""
    data = outcome.data
    if not data.groups:
        return []
    found = group_scores(outcome.probabilities, outcome.labels, data.groups)
    groups = np.asarray(data.groups)
    rows = []
    for name in sorted(found, key=lambda name: (found[name]["accuracy"], name)):
        inside = groups == name
        present = sorted(set(outcome.labels[inside].tolist()))
        row = [name, str(inside.sum()), ", ".join(outcome.classes[c] for c in present)]
        row.append(f"{found[name]['accuracy']:.1%}")
        if len(outcome.classes) == 2:
            row.append(number(float(outcome.probabilities[inside, 1].mean())))
        rows.append(row)
    return rows


def _told(interval: Interval) -> str:
    low, high = interval
    return "–" if np.isnan(low) else f"{low:.3f} to {high:.3f}"


def _titles(outcome: Outcome) -> tuple[str, str]:
    groups = outcome.data.groups
    unit = f"{len(set(groups))} groups" if groups else "images, as the data has no groups"
    kind = f"positive class: {outcome.classes[1]}"
    if len(outcome.classes) > 2:
        kind = "means over classes"
    return f"Scores on {outcome.where}", f"{kind}; intervals by bootstrap over {unit}"


def _png(outcome: Outcome, scores: Rows, groups: Rows) -> bytes:
    shown = groups[:MOST_GROUPS]
    columns = max(3, len(group_head(outcome)) if shown else 0)
    height = HEAD + (len(scores) + 1) * LINE
    height += (len(shown) + 3.2) * LINE if shown else 0
    width = max(2 * MARGIN + NAMES + (columns - 1) * COLUMN, WIDTH)
    page = new_page(width, 2 * MARGIN + height)
    head(page, *_titles(outcome))
    top = MARGIN + HEAD
    _draw_table(page, top, [SCORE_HEAD, *scores])
    if shown:
        top += (len(scores) + 1.7) * LINE
        left_out = f", the worst {len(shown)} of {len(groups)}" if len(shown) < len(groups) else ""
        title = f"By group{left_out}"
        write(page, MARGIN, top, title, fontsize=12, fontweight="bold")
        _draw_table(page, top + 1.1 * LINE, [group_head(outcome), *shown])
    return to_png(page)


def _draw_table(page: "Figure", top: float, lines: Rows) -> None:
    from matplotlib.lines import Line2D

    wide, high = page.get_size_inches()
    for place, cells in enumerate(lines):
        middle = top + (place + 0.5) * LINE
        colour = MUTED if place == 0 else INK
        style = {"va": "center_baseline", "fontsize": 10, "color": colour}
        write(page, MARGIN, middle, shorten(cells[0], most=30), **style)
        for column, cell in enumerate(cells[1:], start=1):
            right = MARGIN + NAMES + column * COLUMN
            write(page, right, middle, shorten(cell, most=18), ha="right", **style)
        y = 1 - (top + (place + 1) * LINE) / high
        ends = MARGIN / wide, (MARGIN + NAMES + (len(cells) - 1) * COLUMN) / wide
        page.add_artist(Line2D(ends, (y, y), color=INK if place == 0 else RULE, linewidth=0.8))


def _html(outcome: Outcome, scores: Rows, groups: Rows) -> str:
    from plotly.graph_objects import Figure

    line, gap = 30, 60
    first, second = (len(scores) + 2) * line, (min(len(groups), 20) + 2) * line if groups else 0
    inner = first + (gap + second if groups else 0)
    page = Figure()
    page.add_trace(_html_table(SCORE_HEAD, scores, (1 - first / inner, 1)))
    if groups:
        page.add_trace(_html_table(group_head(outcome), groups, (0, second / inner)))
    margin = {"t": 110, "b": 40, "l": 40, "r": 40}
    return html_page(page, *_titles(outcome), height=inner + 150, margin=margin)


def _html_table(heads: list[str], rows: Rows, place: tuple[float, float]) -> "Table":
    from plotly.graph_objects import Table

    style = {
        "align": ["left"] + ["right"] * (len(heads) - 1),
        "fill_color": "white",
        "line_color": RULE,
        "height": 28,
    }
    columns = [[escape(cell) for cell in column] for column in zip(*rows, strict=True)]
    return Table(
        domain={"y": place},
        columnwidth=[2] + [1] * (len(heads) - 1),
        header={"values": [escape(title) for title in heads], **style},
        cells={"values": columns, **style},
    )
