"""Confusion matrix: images by true and predicted class, coloured by their share of the true."""

from html import escape
from typing import Any

import numpy as np

from hemaml.core.types import Float64Array, Int64Array
from hemaml.explain import Picture
from hemaml.explain.canvas import INK, MUTED, axes_at, new_page, shorten, to_png, write
from hemaml.explain.outcome import HEAD, MARGIN, Outcome, head, html_page

PALE, DARK = "#f5f8fa", "#00517f"
"""Colours of the shares 0 and 1."""
# Inches: a cell, the column of class names, the line below the matrix.
CELL, NAMES, BELOW = 1.25, 1.5, 0.75


def picture(outcome: Outcome) -> Picture:
    """Counts, and shares of each true class (row), as `confusion`."""
    counts = confusion_matrix(outcome)
    return Picture("confusion", png=_png(outcome, counts), html=_html(outcome, counts))


def confusion_matrix(outcome: Outcome) -> Int64Array:
    """C x C numbers of images by true (row) and predicted class (column)."""
    count = len(outcome.classes)
    cells = outcome.labels * count + outcome.predicted
    return np.bincount(cells, minlength=count**2).reshape(count, count)


def row_shares(counts: Int64Array) -> Float64Array:
    """Shares of each row; 0 in a row without images."""
    shares: Float64Array = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares


def _titles(outcome: Outcome, counts: Int64Array) -> tuple[str, str]:
    right = int(np.trace(counts))
    below = f"{right} of {outcome.where} are right; a row adds up to 100 %"
    return "Confusion matrix", below


def _png(outcome: Outcome, counts: Int64Array) -> bytes:
    from matplotlib.colors import LinearSegmentedColormap

    shares, count = row_shares(counts), len(outcome.classes)
    side = count * CELL
    left, top = MARGIN + NAMES, MARGIN + HEAD
    page = new_page(max(left + side + MARGIN, 6.5), top + side + BELOW + MARGIN)
    head(page, *_titles(outcome, counts))
    axes = axes_at(page, left, top, side, side)
    axes.imshow(
        shares, cmap=LinearSegmentedColormap.from_list("shares", [PALE, DARK]), vmin=0, vmax=1
    )
    for row, column in np.ndindex(count, count):
        colour = "white" if shares[row, column] > 0.5 else INK
        style: dict[str, Any] = {"ha": "center", "color": colour}
        axes.text(column, row - 0.06, f"{counts[row, column]:,}", fontsize=15, **style)
        axes.text(column, row + 0.22, f"{shares[row, column]:.1%}", fontsize=9, **style)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    for index in range(1, count):
        axes.axhline(index - 0.5, color="white", linewidth=2)
        axes.axvline(index - 0.5, color="white", linewidth=2)
    for index, name in enumerate(outcome.classes):
        middle = (index + 0.5) * CELL
        text = shorten(name, most=15)
        write(page, left - 0.12, top + middle - 0.08, text, ha="right", va="center_baseline")
        images = f"{counts[index].sum():,} images"
        below = top + middle + 0.12
        write(page, left - 0.12, below, images, ha="right", color=MUTED, fontsize=8)
        write(page, left + middle, top + side + 0.1, text, ha="center")
    write(page, left, top + side + 0.42, "predicted class, below; true class, left", color=MUTED)
    return to_png(page)


def _html(outcome: Outcome, counts: Int64Array) -> str:
    from plotly.graph_objects import Figure, Heatmap

    names = [escape(name) for name in outcome.classes]
    shares = row_shares(counts)
    cells = Heatmap(
        z=shares,
        x=names,
        y=names,
        text=[
            [f"{n:,}<br>{s:.1%}" for n, s in zip(*row, strict=True)]
            for row in zip(counts, shares, strict=True)
        ],
        texttemplate="%{text}",
        hovertemplate="true %{y}, predicted %{x}: %{text}<extra></extra>",
        colorscale=[[0, PALE], [1, DARK]],
        zmin=0,
        zmax=1,
        xgap=2,
        ygap=2,
        colorbar={"title": "share of the true class", "tickformat": ".0%"},
    )
    return html_page(
        Figure(cells),
        *_titles(outcome, counts),
        xaxis={"title": "predicted class", "type": "category", "constrain": "domain"},
        yaxis={
            "title": "true class",
            "type": "category",
            "autorange": "reversed",
            "scaleanchor": "x",
            "constrain": "domain",
        },
    )
