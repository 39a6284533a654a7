"""Scores of a segmentation model by class, and how its Dice spreads over the images."""

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from hemaml.core.dataset import Dataset
from hemaml.core.objective import Model
from hemaml.core.types import Float64Array
from hemaml.explain import Picture
from hemaml.explain.canvas import (
    INK,
    MUTED,
    RULE,
    axes_at,
    chip,
    class_colour,
    new_page,
    shorten,
    to_png,
    write,
)
from hemaml.explain.predictions import Predictions, foreground, predict_masks
from hemaml.ops.scores import SCORES, segmentation_report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from plotly.graph_objects import Box, Table

TITLES = {
    "dice": "Dice",
    "iou": "IoU",
    "ppv": "PPV",
    "sensitivity": "Sensitivity",
    "accuracy": "Accuracy",
    "hausdorff": "Hausdorff (px)",
}
MEAN = "foreground mean"

# Inches: outer margin, head, a line of the table, the column of class names, a column of scores,
# the height of the plot.
MARGIN, HEAD, LINE, NAMES, COLUMN, PLOT = 0.3, 0.75, 0.32, 1.9, 1.15, 3.2


def draw(model: Model, data: Dataset) -> list[Picture]:
    """A table of all scores by class above each image's Dice by class.

    Args:
        model: A segmentation model.
        data: Images with masks; class 0 is the background.

    Returns:
        One picture, `per_class`, as PNG and as HTML that needs no network.

    Raises:
        DataError: The data has no images, or no masks.
    """
    predictions = predict_masks(model, data)
    report = segmentation_report(
        predictions.masks, data.masks, classes=data.classes, background=data.classes[0]
    )
    page = _html(data, predictions, report)
    return [Picture("per_class", png=_png(data, predictions, report), html=page)]


def table_rows(data: Dataset, report: dict[str, float]) -> list[list[str]]:
    """Name and scores of the foreground classes, of their mean, and of the background.

    A score that no image defines is a dash.
    """
    rows = [(name, f"/{name}") for name in foreground(data)]
    rows += [(MEAN, ""), (data.classes[0], f"/{data.classes[0]}")]
    return [
        [name, *(_number(report[f"{score}{suffix}"], score) for score in SCORES)]
        for name, suffix in rows
    ]


def _number(value: float, score: str) -> str:
    if np.isnan(value):
        return "–"
    return f"{value:.1f}" if score == "hausdorff" else f"{value:.4f}"


def _dice_of(predictions: Predictions, name: str) -> tuple[list[int], Float64Array]:
    """Indices of the images that have a Dice of the class, and these."""
    values = np.array([scores[f"dice/{name}"] for scores in predictions.scores])
    defined = np.flatnonzero(~np.isnan(values))
    return defined.tolist(), values[defined]


def _titles(data: Dataset, report: dict[str, float]) -> tuple[str, str]:
    title = f"Scores by class on {len(data)} images of {shorten(data.name, most=40)}"
    pooled = _number(report["dice_pooled"], "dice")
    return title, f"means over images; Dice over the pooled foreground pixels {pooled}"


def _png(data: Dataset, predictions: Predictions, report: dict[str, float]) -> bytes:
    rows = table_rows(data, report)
    width = 2 * MARGIN + NAMES + len(SCORES) * COLUMN
    table_height = (1 + len(rows)) * LINE
    page = new_page(width, 2 * MARGIN + HEAD + table_height + 0.65 + PLOT + 0.35)
    title, below = _titles(data, report)
    write(page, MARGIN, MARGIN, title, fontsize=15, fontweight="bold")
    write(page, MARGIN, MARGIN + 0.32, below, color=MUTED)
    top = MARGIN + HEAD
    _draw_table(page, top, data, rows)
    top += table_height + 0.3
    write(page, MARGIN, top, "Dice of each image", fontsize=12, fontweight="bold")
    _draw_distributions(page, top + 0.35, data, predictions)
    return to_png(page)


def _draw_table(page: "Figure", top: float, data: Dataset, rows: list[list[str]]) -> None:
    from matplotlib.lines import Line2D

    wide, high = page.get_size_inches()
    lines = [["class", *(TITLES[score] for score in SCORES)], *rows]
    for number, cells in enumerate(lines):
        middle = top + (number + 0.5) * LINE
        style: dict[str, Any] = {"va": "center_baseline", "fontsize": 10}
        style["color"] = MUTED if number == 0 else INK
        style["fontweight"] = "bold" if cells[0] == MEAN else "normal"
        if cells[0] in data.classes:
            chip(page, MARGIN, middle, class_colour(data.classes.index(cells[0])))
        write(page, MARGIN + 0.2, middle, shorten(cells[0], most=20), **style)
        for column, cell in enumerate(cells[1:], start=1):
            write(page, MARGIN + NAMES + column * COLUMN, middle, cell, ha="right", **style)
        y = 1 - (top + (number + 1) * LINE) / high
        ends = MARGIN / wide, 1 - MARGIN / wide
        page.add_artist(Line2D(ends, (y, y), color=INK if number == 0 else RULE, linewidth=0.8))


def _draw_distributions(
    page: "Figure", top: float, data: Dataset, predictions: Predictions
) -> None:
    """A box over a strip of points for each class, foreground first."""
    left = MARGIN + 0.5
    axes = axes_at(page, left, top, page.get_size_inches()[0] - left - MARGIN, PLOT)
    names = [*foreground(data), data.classes[0]]
    rng = np.random.default_rng(0)
    for place, name in enumerate(names):
        colour = class_colour(data.classes.index(name))
        _, values = _dice_of(predictions, name)
        spread = place + rng.uniform(-0.12, 0.12, len(values))
        axes.scatter(spread, values, s=16, color=colour, edgecolor=INK, linewidth=0.4, alpha=0.8)
        if not len(values):
            axes.text(place, 0.5, "absent", ha="center", va="center", color=MUTED)
            continue
        _box(axes, place, values)
    axes.set(xlim=(-0.6, len(names) - 0.4), ylim=(-0.03, 1.03), ylabel="Dice")
    ticks = [shorten(name, most=max(8, 80 // len(names))) for name in names]
    axes.set_xticks(range(len(names)), ticks, parse_math=False)
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(length=0)


def _box(axes: "Axes", place: int, values: Float64Array) -> None:
    line: dict[str, Any] = {"color": INK, "linewidth": 1.1}
    axes.boxplot(
        [values],
        positions=[place],
        widths=0.5,
        showfliers=False,
        boxprops=line,
        whiskerprops=line,
        capprops=line,
        medianprops=line | {"linewidth": 2},
    )


def _html(data: Dataset, predictions: Predictions, report: dict[str, float]) -> str:
    from plotly.graph_objects import Figure

    rows = table_rows(data, report)
    above, table, gap, plot, below = 110, 30 * (len(rows) + 1) + 10, 50, 400, 60  # pixels
    inner = table + gap + plot
    title, subtitle = _titles(data, report)
    page = Figure()
    page.add_trace(_html_table(rows, bottom=1 - table / inner))
    names = [*foreground(data), data.classes[0]]
    for name in names:
        page.add_trace(_html_box(data, predictions, name))
    page.update_layout(
        template="plotly_white",
        height=above + inner + below,
        margin={"t": above, "b": below, "l": 70, "r": 40},
        showlegend=False,
        title={"text": escape(title), "subtitle": {"text": escape(subtitle)}, "x": 0.02},
        xaxis={  # keeps the place of a class that no image has
            "type": "category",
            "categoryarray": [escape(name) for name in names],
            "range": [-0.5, len(names) - 0.5],
        },
        yaxis={"domain": [0, plot / inner], "range": [-0.03, 1.03], "title": "Dice of each image"},
    )
    return str(page.to_html(include_plotlyjs=True, full_html=True, config={"displaylogo": False}))


def _html_table(rows: list[list[str]], *, bottom: float) -> "Table":
    from plotly.graph_objects import Table

    marked = [[f"<b>{c}</b>" if row[0] == MEAN else escape(c) for c in row] for row in rows]
    style = {
        "align": ["left"] + ["right"] * len(SCORES),
        "fill_color": "white",
        "line_color": RULE,
        "height": 28,
    }
    return Table(
        domain={"y": [bottom, 1]},
        columnwidth=[1.6] + [1] * len(SCORES),
        header={"values": ["class", *(TITLES[score] for score in SCORES)], **style},
        cells={"values": list(zip(*marked, strict=True)), **style},
    )


def _html_box(data: Dataset, predictions: Predictions, name: str) -> "Box":
    from plotly.graph_objects import Box

    indices, values = _dice_of(predictions, name)
    colour = class_colour(data.classes.index(name))
    return Box(
        y=values,
        name=escape(name),
        text=[escape(data.ids[i]) for i in indices],
        hovertemplate="%{text}: %{y:.4f}<extra></extra>",
        boxpoints="all",
        quartilemethod="inclusive",  # as matplotlib does
        jitter=0.4,
        pointpos=0,
        line={"color": INK, "width": 1.2},
        fillcolor="rgba(0,0,0,0)",
        marker={"color": colour, "size": 6, "line": {"color": INK, "width": 0.5}},
    )
