"""What a classifier predicts for a data set, and what its figures share: names, colours, page."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from hemaml.core.dataset import Dataset
from hemaml.core.types import Float32Array, Int64Array
from hemaml.explain.canvas import INK, MUTED, RULE, key, shorten, write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from plotly.graph_objects import Figure as HtmlFigure

COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#1a1a1a",
)  # fmt: skip
"""Of the classes, in index order; all but the last two by Okabe and Ito, dark enough for lines."""
MARGIN, HEAD = 0.3, 0.75
"""Inches: around a page, and of its title with the line below it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Predictions beside their truth.

    Attributes:
        data: N labelled images.
        probabilities: N x C.
    """

    data: Dataset
    probabilities: Float32Array

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the C classes."""
        return self.data.classes

    @property
    def labels(self) -> Int64Array:
        """N true classes."""
        return np.asarray(self.data.labels, dtype=np.int64)

    @property
    def predicted(self) -> Int64Array:
        """N most probable classes."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def shown_classes(self) -> tuple[int, ...]:
        """The positive class of two, or all: a curve each."""
        return (1,) if len(self.classes) == 2 else tuple(range(len(self.classes)))

    @property
    def where(self) -> str:
        """The set in words, for titles."""
        return f"{len(self.data)} images of {shorten(self.data.name, most=40)}"


def colour_of(index: int) -> str:
    """Colour of a class by its index; from the ninth on they repeat."""
    return COLOURS[index % len(COLOURS)]


def number(value: float, digits: int = 3) -> str:
    """A score; a dash where it is undefined."""
    return "–" if np.isnan(value) else f"{value:.{digits}f}"


def head(page: "Figure", title: str, below: str) -> None:
    """Title and subtitle at the top of a page."""
    write(page, MARGIN, MARGIN, title, fontsize=14, fontweight="bold")
    write(page, MARGIN, MARGIN + 0.31, below, color=MUTED)


def class_key(page: "Figure", classes: Sequence[str]) -> None:
    """The classes and their colours in one line below the head."""
    entries = [(colour_of(index), name) for index, name in enumerate(classes)]
    key(page, MARGIN, MARGIN + HEAD, entries)


def plain(axes: "Axes") -> None:
    """Hairlines for a frame, a faint grid below what is drawn, no tick marks."""
    axes.grid(color=RULE, linewidth=0.5, alpha=0.7)
    axes.set_axisbelow(True)
    axes.spines[:].set(color=RULE, linewidth=0.8)
    axes.tick_params(length=0, labelcolor=INK)


def html_page(
    page: "HtmlFigure", title: str, below: str, *, height: int = 620, **layout: Any
) -> str:
    """A Plotly figure as a page that needs no network."""
    page.update_layout(
        template="plotly_white",
        height=height,
        title={"text": escape(title), "subtitle": {"text": escape(below)}, "x": 0.02},
        **{"margin": {"t": 110, "b": 60, "l": 80, "r": 40}, **layout},
    )
    return str(page.to_html(include_plotlyjs=True, full_html=True, config={"displaylogo": False}))
