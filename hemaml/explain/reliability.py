"""Reliability: how often predictions are right, by how sure the model was of them."""

from dataclasses import dataclass

import numpy as np

from hemaml.core.types import Float64Array, Int64Array
from hemaml.explain import Picture
from hemaml.explain.canvas import INK, MUTED, axes_at, new_page, to_png
from hemaml.explain.outcome import HEAD, MARGIN, Outcome, colour_of, head, html_page, number, plain
from hemaml.ops.classification_scores import BINS, calibration_bins, classification_scores

WIDTH, PLOT, COUNTS, GAP = 5.2, 3.9, 1.0, 0.15
X_TITLE, Y_TITLE = "probability of the predicted class", "share that is right"


@dataclass(frozen=True, slots=True)
class Bins:
    """B bins of the top probability; those without images are NaN.

    Attributes:
        counts: B numbers of images.
        sure: B mean top probabilities.
        right: B shares of right predictions.
    """

    counts: Int64Array
    sure: Float64Array
    right: Float64Array


def picture(outcome: Outcome) -> Picture:
    """The curve over the bins of the expected calibration error, and their sizes."""
    bins = reliability_bins(outcome)
    return Picture("reliability", png=_png(outcome, bins), html=_html(outcome, bins))


def reliability_bins(outcome: Outcome) -> Bins:
    """The bins that `ece` in `hemaml.ops.classification_scores` is made of."""
    index = calibration_bins(outcome.probabilities)
    counts = np.bincount(index, minlength=BINS)
    top = outcome.probabilities.max(axis=1)
    right = (outcome.predicted == outcome.labels).astype(np.float64)
    divisor = np.where(counts > 0, counts, np.nan)
    return Bins(
        counts,
        np.bincount(index, top, minlength=BINS) / divisor,
        np.bincount(index, right, minlength=BINS) / divisor,
    )


def _titles(outcome: Outcome) -> tuple[str, str]:
    scores = classification_scores(outcome.probabilities, outcome.labels)
    below = (
        f"{outcome.where}; expected calibration error {number(scores['ece'])}, "
        f"log loss {number(scores['log_loss'])}"
    )
    return "Reliability", below


def _lowest(outcome: Outcome) -> float:
    """No predicted class is less probable."""
    return 1 / len(outcome.classes)


def _png(outcome: Outcome, bins: Bins) -> bytes:
    left, top = MARGIN + 0.7, MARGIN + HEAD
    page = new_page(left + WIDTH + MARGIN, top + PLOT + GAP + COUNTS + 0.6 + MARGIN)
    head(page, *_titles(outcome))
    axes, below = (
        axes_at(page, left, top, WIDTH, PLOT),
        axes_at(page, left, top + PLOT + GAP, WIDTH, COUNTS),
    )
    lowest = _lowest(outcome)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    filled = bins.counts > 0
    axes.plot(bins.sure[filled], bins.right[filled], color=colour_of(0), linewidth=1.2)
    areas = 15 + 180 * bins.counts[filled] / bins.counts.sum()
    axes.scatter(
        bins.sure[filled], bins.right[filled], s=areas, color=colour_of(0), edgecolor=INK,
        linewidth=0.6, zorder=3,
    )  # fmt: skip
    limits = (lowest - 0.02, 1.02)
    axes.set(xlim=limits, ylim=(-0.03, 1.03), ylabel=Y_TITLE, xticklabels=[])
    edges = np.arange(BINS) / BINS
    below.bar(edges, bins.counts, width=1 / BINS, align="edge", color="#b8cfdd", edgecolor="white")
    for edge, count in zip(edges[filled], bins.counts[filled], strict=True):
        place = (edge + 0.5 / BINS, count)
        below.annotate(
            f"{count:,}", place, (0, 2), textcoords="offset points", ha="center", fontsize=8
        )
    below.margins(y=0.25)
    below.set(xlim=limits, xlabel=X_TITLE, ylabel="images")
    for one in (axes, below):
        plain(one)
    return to_png(page)


def _html(outcome: Outcome, bins: Bins) -> str:
    from plotly.graph_objects import Bar, Figure, Scatter

    filled = bins.counts > 0
    counts = bins.counts[filled]
    line = {"color": MUTED, "width": 1, "dash": "dash"}
    page = Figure()
    page.add_trace(Scatter(x=[0, 1], y=[0, 1], mode="lines", line=line, hoverinfo="skip"))
    page.add_trace(
        Scatter(
            x=bins.sure[filled],
            y=bins.right[filled],
            mode="lines+markers",
            line={"color": colour_of(0)},
            marker={"size": 7 + 14 * np.sqrt(counts / counts.max())},
            customdata=counts,
            hovertemplate="%{customdata} images: sure %{x:.3f}, right %{y:.3f}<extra></extra>",
        )
    )
    centres = (np.arange(BINS) + 0.5) / BINS
    bars = {"color": "#b8cfdd"}
    page.add_trace(Bar(x=centres, y=bins.counts, width=1 / BINS, marker=bars, yaxis="y2"))
    page.data[-1].hovertemplate = "%{y} images<extra></extra>"
    return html_page(
        page,
        *_titles(outcome),
        showlegend=False,
        xaxis={"title": X_TITLE, "range": [_lowest(outcome) - 0.02, 1.02], "anchor": "y2"},
        yaxis={"title": Y_TITLE, "range": [-0.03, 1.03], "domain": [0.27, 1]},
        yaxis2={"title": "images", "domain": [0, 0.22]},
    )
