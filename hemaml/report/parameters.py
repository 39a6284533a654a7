"""Figures of a search over its parameters: parallel coordinates, importance, slices, contours.

A parameter's axis runs from 0 to 1: over the logarithm where its range is logarithmic, over the
index of the choice where it is categorical.

Letters: T trials, G points of a grid.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hemaml.core.space import Dimension, Scalar
from hemaml.core.types import Float64Array
from hemaml.engines.importance import importances
from hemaml.report.figures import (
    BLUE,
    ORANGE,
    WORSE_TO_BETTER,
    column,
    new_figure,
    scatter,
    told,
)
from hemaml.report.gather import Swept, Trial

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

GRID = 32
"""Points of a contour along each range."""
BANDWIDTH = 0.1
"""Standard deviation, in shares of a range, of the kernel that smooths a contour."""
FEWEST_NEAR = 0.15
"""Sum of weights below which a contour is blank: no trial is near."""
MOST_CONTOURS = 3
DOTS = 400
"""Trials drawn on a contour."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A parameter as an axis.

    Attributes:
        name: Of the parameter.
        dimension: Its range.
    """

    name: str
    dimension: Dimension

    @property
    def log(self) -> bool:
        """Whether it is logarithmic."""
        return self.dimension.type != "categorical" and self.dimension.log

    @property
    def labels(self) -> list[str]:
        """The choices in words; empty for a range."""
        chosen = self.dimension.choices if self.dimension.type == "categorical" else []
        return [str(choice) for choice in chosen]

    def place(self, value: Scalar) -> float:
        """Where a value lies: the index of a choice, the logarithm or the number itself."""
        if self.dimension.type == "categorical":
            return float(self.dimension.choices.index(value))
        number = float(value)  # type: ignore[arg-type]
        return math.log10(number) if self.log else number

    @property
    def ends(self) -> tuple[float, float]:
        """Places of the ends of the range."""
        if self.dimension.type == "categorical":
            return 0.0, float(max(len(self.dimension.choices) - 1, 1))
        return self.place(self.dimension.low), self.place(self.dimension.high)

    def places(self, trials: Sequence[Trial]) -> Float64Array:
        """T places; NaN where the parameter was not searched."""
        return np.array(
            [self.place(t.point[self.name]) if self.name in t.point else math.nan for t in trials]
        )

    @property
    def grid(self) -> Float64Array:
        """G places that a contour is computed at."""
        low, high = self.ends
        return np.linspace(low, high, len(self.labels) or GRID)

    def ticks(self) -> tuple[list[float], list[str]]:
        """Places and words of an axis whose numbers are places."""
        if self.labels:
            return [float(i) for i in range(len(self.labels))], self.labels
        low, high = self.ends
        places = np.linspace(low, high, 5)
        return list(places), [f"{10**p if self.log else p:.3g}" for p in places]


def axes_of(sweep: Swept) -> list[Axis]:
    """One axis a searched parameter."""
    return [Axis(name, dimension) for name, dimension in sweep.space.root.items()]


def parallel_coordinates(sweep: Swept) -> "Figure | None":
    """Each finished trial as a line through its parameters to its score; axes can be brushed."""
    from plotly import graph_objects as go

    trials = sweep.settled[::-1]  # the best are drawn last
    if len(trials) < 2:
        return None
    values = column(trials, sweep.goal.metric)
    dimensions = []
    for axis in axes_of(sweep):
        places, words = axis.ticks()
        found = axis.places(trials)
        low, high = axis.ends
        # A parameter that a trial did not have runs below its axis.
        found = np.where(np.isnan(found), low - 0.08 * (high - low or 1), found)
        dimensions.append(
            {"label": axis.name, "values": found, "tickvals": places, "ticktext": words,
             "range": [min(low, float(found.min())), high]}
        )  # fmt: skip
    dimensions.append({"label": sweep.goal.metric, "values": values})
    colours = {
        "color": values, "colorscale": WORSE_TO_BETTER, "reversescale": sweep.sign < 0,
        "showscale": True, "cmin": float(np.quantile(values, 0.05)), "cmax": float(values.max()),
        "colorbar": {"thickness": 10},
    }  # fmt: skip
    figure = go.Figure(go.Parcoords(line=colours, dimensions=dimensions))
    figure.update_layout(template="none", height=400, margin={"l": 70, "r": 40, "t": 56, "b": 24})
    return figure


def importance(sweep: Swept) -> "Figure | None":
    """How much of the score each parameter explains, with a 95 % interval over resampled trials."""
    from plotly import graph_objects as go

    values = sweep.sign * column(sweep.settled, sweep.goal.metric)
    found = importances([trial.point for trial in sweep.settled], values, sweep.space)
    if not found:
        return None
    names = sorted(found, key=lambda name: found[name].share)
    shares = np.array([found[name].share for name in names])
    figure = new_figure("share of importance", "", height=90 + 34 * len(names))
    figure.add_trace(
        go.Bar(
            x=shares, y=names, orientation="h", marker={"color": BLUE, "opacity": 0.8},
            error_x={
                "type": "data", "symmetric": False, "color": ORANGE, "thickness": 1.5,
                "array": np.array([found[n].high for n in names]) - shares,
                "arrayminus": shares - np.array([found[n].low for n in names]),
            },
        )
    )  # fmt: skip
    figure.update_yaxes(title=None, automargin=True, ticksuffix="  ")
    figure.update_xaxes(rangemode="tozero", range=[0, max(f.high for f in found.values()) * 1.05])
    return figure


def slices(sweep: Swept) -> "Figure | None":
    """The score against each parameter alone; later trials are darker."""
    from plotly.subplots import make_subplots

    trials = sorted(sweep.settled, key=lambda trial: trial.number)
    axes = axes_of(sweep)
    if len(trials) < 2:
        return None
    wide = min(4, len(axes))
    rows = math.ceil(len(axes) / wide)
    figure = make_subplots(rows, wide, shared_yaxes=True, horizontal_spacing=0.02,
                           vertical_spacing=0.28 / rows)  # fmt: skip
    values = column(trials, sweep.goal.metric)
    numbers = np.array([trial.number for trial in trials])
    for index, axis in enumerate(axes):
        row, col = index // wide + 1, index % wide + 1
        marker = {"color": numbers, "colorscale": "Blues", "cmin": -0.4 * numbers.max(),
                  "size": 7, "line": {"width": 0.5, "color": BLUE}}  # fmt: skip
        figure.add_trace(
            scatter(len(trials))(x=axis.places(trials), y=values, mode="markers", marker=marker,
                                 text=told(trials), hoverinfo="text+y", showlegend=False),
            row, col,
        )  # fmt: skip
        places, words = axis.ticks()
        low, high = axis.ends
        beyond = 0.06 * (high - low or 1)
        figure.update_xaxes(title=axis.name, tickvals=places, ticktext=words,
                            range=[low - beyond, high + beyond], row=row, col=col)  # fmt: skip
    figure.update_yaxes(title=sweep.goal.metric, col=1)
    figure.update_layout(template="none", height=60 + 260 * rows,
                         margin={"l": 64, "r": 16, "t": 16, "b": 56})  # fmt: skip
    figure.update_xaxes(zeroline=False)
    figure.update_yaxes(zeroline=False)
    return figure


def contours(sweep: Swept) -> "Figure | None":
    """The mean score over pairs of the parameters that matter most."""
    from plotly.subplots import make_subplots

    trials = sweep.settled
    values = column(trials, sweep.goal.metric)
    found = importances([t.point for t in trials], sweep.sign * values, sweep.space, resamples=0)
    ranked = sorted(found, key=lambda name: -found[name].share)[:MOST_CONTOURS]
    axes = {axis.name: axis for axis in axes_of(sweep)}
    pairs = [(axes[a], axes[b]) for a, b in itertools.combinations(ranked, 2)]
    if not pairs or len(trials) < 4:
        return None
    figure = make_subplots(1, len(pairs), horizontal_spacing=0.09)
    for index, (across, up) in enumerate(pairs, start=1):
        _add_contour(figure, sweep, across, up, index)
    figure.update_layout(template="none", height=360, showlegend=False,
                         margin={"l": 64, "r": 16, "t": 16, "b": 56})  # fmt: skip
    return figure


def _add_contour(figure: "Figure", sweep: Swept, across: Axis, up: Axis, index: int) -> None:
    from plotly import graph_objects as go

    trials = [t for t in sweep.settled if across.name in t.point and up.name in t.point]
    values = column(trials, sweep.goal.metric)
    x_T, y_T = across.places(trials), up.places(trials)
    z_GG = smoothed(across, up, x_T, y_T, values)
    low, high = float(np.quantile(values, 0.05)), float(values.max())
    kind = go.Heatmap if across.labels or up.labels else go.Contour
    figure.add_trace(
        kind(x=across.grid, y=up.grid, z=z_GG, colorscale="Viridis", zmin=low, zmax=high,
             reversescale=sweep.sign < 0, showscale=index == 1, colorbar={"thickness": 10},
             hovertemplate=f"{sweep.goal.metric} %{{z:.4f}}<extra></extra>"),
        1, index,
    )  # fmt: skip
    few = slice(None, None, max(1, len(trials) // DOTS))
    figure.add_trace(
        scatter(0)(x=x_T[few], y=y_T[few], mode="markers", hoverinfo="skip",
                   marker={"size": 5, "color": "white", "line": {"width": 1, "color": "#333"}}),
        1, index,
    )  # fmt: skip
    for axis, update in ((across, figure.update_xaxes), (up, figure.update_yaxes)):
        places, words = axis.ticks()
        update(title=axis.name, tickvals=places, ticktext=words, showgrid=False, zeroline=False,
               row=1, col=index)  # fmt: skip


def smoothed(
    across: Axis, up: Axis, x_T: Float64Array, y_T: Float64Array, values: Float64Array
) -> Float64Array:
    """G x G means of the trials near each point of the grid, NaN where none is near.

    A Gaussian kernel along ranges; choices are not mixed.
    """
    weights = [_nearness(axis, places) for axis, places in ((across, x_T), (up, y_T))]
    near_GG = weights[1] @ weights[0].T
    total_GG = (weights[1] * values) @ weights[0].T
    blank = np.full_like(total_GG, math.nan)
    return np.divide(total_GG, near_GG, out=blank, where=near_GG >= FEWEST_NEAR)


def _nearness(axis: Axis, places: Float64Array) -> Float64Array:
    """G x T weights of the trials at each place of an axis's grid."""
    apart = axis.grid[:, None] - places[None, :]
    if axis.labels:
        return (np.abs(apart) < 0.5).astype(np.float64)
    low, high = axis.ends
    return np.exp(-0.5 * (apart / (BANDWIDTH * (high - low or 1.0))) ** 2)
