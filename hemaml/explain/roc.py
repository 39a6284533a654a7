"""ROC: the share of a class that is found against the share of the others taken for it."""

from dataclasses import dataclass
from html import escape

import numpy as np

from hemaml.core.types import BoolArray, Float64Array
from hemaml.explain import Picture
from hemaml.explain.canvas import MUTED, axes_at, new_page, shorten, to_png
from hemaml.explain.outcome import (
    HEAD,
    MARGIN,
    Outcome,
    colour_of,
    head,
    html_page,
    number,
    plain,
)
from hemaml.ops.classification_scores import classification_scores

SIDE = 4.6
X_TITLE, Y_TITLE = "false positives, share of the others", "true positives, share of the class"


@dataclass(frozen=True, slots=True)
class Curve:
    """One class against the rest, thresholds from high to low.

    Attributes:
        index: Of the class.
        x: False positive rates, from 0 to 1.
        y: True positive rates, from 0 to 1.
        thresholds: Probabilities from which on an image counts as the class; infinite at first.
        auc: Area under the curve.
    """

    index: int
    x: Float64Array
    y: Float64Array
    thresholds: Float64Array
    auc: float


def picture(outcome: Outcome) -> Picture:
    """The curve of the positive class of two, or of each class against the rest, as `roc`."""
    curves = roc_curves(outcome)
    return Picture("roc", png=_png(outcome, curves), html=_html(outcome, curves))


def roc_curves(outcome: Outcome) -> list[Curve]:
    """Curves of the classes that have images, and others beside them."""
    return [
        _curve(index, outcome.probabilities[:, index].astype(np.float64), outcome.labels == index)
        for index in outcome.shown_classes
        if 0 < int((outcome.labels == index).sum()) < len(outcome.data)
    ]


def _curve(index: int, scores: Float64Array, positive: BoolArray) -> Curve:
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    found = np.append(0, positive[order].cumsum()[ends])
    wrong = np.append(0, ends + 1) - found
    x, y = wrong / wrong[-1], found / found[-1]
    thresholds = np.append(np.inf, scores[order][ends])
    return Curve(index, x, y, thresholds, float(np.trapezoid(y, x)))


def _titles(outcome: Outcome) -> tuple[str, str]:
    auc = classification_scores(outcome.probabilities, outcome.labels)["auc"]
    kind = f"of {outcome.classes[1]!r}" if len(outcome.classes) == 2 else "mean over classes"
    return "ROC curve", f"{outcome.where}; AUC {number(auc)} ({kind})"


def _png(outcome: Outcome, curves: list[Curve]) -> bytes:
    top = MARGIN + HEAD
    page = new_page(MARGIN + 0.7 + SIDE + MARGIN, top + SIDE + 0.6 + MARGIN)
    head(page, *_titles(outcome))
    axes = axes_at(page, MARGIN + 0.7, top, SIDE, SIDE)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    for curve in curves:
        label = f"{shorten(outcome.classes[curve.index], most=22)}  {curve.auc:.3f}"
        axes.plot(curve.x, curve.y, color=colour_of(curve.index), linewidth=1.8, label=label)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=X_TITLE, ylabel=Y_TITLE)
    plain(axes)
    if curves:
        axes.legend(loc="lower right", frameon=False, title="area under the curve")
    return to_png(page)


def _html(outcome: Outcome, curves: list[Curve]) -> str:
    from plotly.graph_objects import Figure, Scatter

    page = Figure()
    for curve in curves:
        page.add_trace(
            Scatter(
                x=curve.x,
                y=curve.y,
                name=f"{escape(outcome.classes[curve.index])} {curve.auc:.3f}",
                line={"color": colour_of(curve.index), "width": 2},
                customdata=curve.thresholds,
                hovertemplate="p ≥ %{customdata:.3f}: found %{y:.1%}, wrong %{x:.1%}",
            )
        )
    line = {"color": MUTED, "width": 1, "dash": "dash"}
    page.add_trace(Scatter(x=[0, 1], y=[0, 1], name="guessing", mode="lines", line=line))
    return html_page(
        page,
        *_titles(outcome),
        showlegend=True,
        xaxis={"title": X_TITLE, "range": [-0.02, 1.02], "constrain": "domain"},
        yaxis={"title": Y_TITLE, "range": [-0.02, 1.02], "scaleanchor": "x"},
    )
