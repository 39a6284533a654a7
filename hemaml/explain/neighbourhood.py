"""What a graph model looks at: wrongly and rightly classified images beside their neighbours.

A row an image: the image, its true and its predicted class, and the neighbours with the largest
edge weights, each in a frame of its class's colour; the bar below it is as long as its weight.
"""

from typing import TYPE_CHECKING

import numpy as np

from hemaml.core.dataset import Dataset
from hemaml.explain import Picture
from hemaml.explain.canvas import (
    INK,
    MUTED,
    RULE,
    axes_at,
    chip,
    new_page,
    shorten,
    show,
    to_png,
    write,
)
from hemaml.explain.outcome import HEAD, MARGIN, Outcome, class_key, colour_of, head
from hemaml.tasks.leukemia import Attaching, Neighbourhood, predicted_probabilities

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EACH = 4
"""Wrong and right images that are shown, at most."""
MOST = 8
"""Neighbours that are shown, at most."""
# Inches: the image, the text beside it, a neighbour, the gap after it, a title, the colour key.
QUERY, TEXT, TILE, GAP, TITLE, KEY = 1.3, 1.75, 0.9, 0.14, 0.4, 0.35
ROW = QUERY + 0.2


def draw(model: Attaching, data: Dataset) -> list[Picture]:
    """The surest wrong and the surest right answers with their neighbours, as `neighbourhood`.

    Args:
        model: A classifier with a bank of labelled images.
        data: Images with labels, not of the bank.

    Raises:
        DataError: The data has no images, or no labels.
    """
    outcome = Outcome(data, predicted_probabilities(model, data))
    sections = {"wrong": surest(outcome, right=False), "right": surest(outcome, right=True)}
    found = {
        index: model.neighbourhood(data.images[index])
        for indices in sections.values()
        for index in indices
    }
    return [Picture("neighbourhood", png=_png(outcome, sections, found))]


def surest(outcome: Outcome, *, right: bool) -> list[int]:
    """Indices of at most `EACH` right or wrong predictions, the most probable first.

    True classes take turns, so that a frequent one does not fill the picture.
    """
    top = outcome.probabilities.max(axis=1)
    chosen = np.flatnonzero((outcome.predicted == outcome.labels) == right)
    order = sorted(chosen.tolist(), key=lambda i: (-top[i], i))
    seen: dict[int, int] = {}
    turns = []
    for index in order:
        label = int(outcome.labels[index])
        seen[label] = seen.get(label, 0) + 1
        turns.append((seen[label], -top[index], index))
    return [index for _, _, index in sorted(turns)[:EACH]]


def _png(
    outcome: Outcome, sections: dict[str, list[int]], found: dict[int, Neighbourhood]
) -> bytes:
    rows = sum(TITLE + max(len(indices), 0.3) * ROW for indices in sections.values())
    width = 2 * MARGIN + QUERY + TEXT + MOST * (TILE + GAP)
    page = new_page(width, 2 * MARGIN + HEAD + KEY + rows)
    below = f"{outcome.where}; neighbours by edge weight, the similarity below each"
    head(page, "Neighbours of wrong and right answers", below)
    class_key(page, outcome.classes)
    top = MARGIN + HEAD + KEY
    for name, indices in sections.items():
        write(page, MARGIN, top, f"The surest {name}", fontsize=12, fontweight="bold")
        top += TITLE
        if not indices:
            write(page, MARGIN, top, "none", color=MUTED)
        for place, index in enumerate(indices):
            _draw_row(page, top + place * ROW, outcome, index, found[index])
        top += max(len(indices), 0.3) * ROW
    return to_png(page)


def _draw_row(
    page: "Figure", top: float, outcome: Outcome, index: int, near: Neighbourhood
) -> None:
    show(axes_at(page, MARGIN, top, QUERY, QUERY), outcome.data.images[index])
    label, predicted = int(outcome.labels[index]), int(outcome.predicted[index])
    left = MARGIN + QUERY + 0.15
    write(page, left, top, shorten(outcome.data.ids[index], most=22), fontsize=8, color=MUTED)
    lines = [("is", label, ""), ("said", predicted, f" {outcome.probabilities[index].max():.0%}")]
    for place, (verb, which, share) in enumerate(lines):
        middle = top + 0.35 + 0.24 * place
        chip(page, left, middle, colour_of(which))
        text = f"{verb} {shorten(outcome.classes[which], most=14)}{share}"
        write(page, left + 0.18, middle, text, va="center_baseline")
    agree = sum(1 for other in near.labels if other == label)
    told = f"{agree} of {len(near.labels)} neighbours\nare of its class"
    write(page, left, top + 0.8, told, fontsize=8, color=MUTED)
    order = np.argsort(-np.asarray(near.weights), kind="stable")[:MOST]
    for place, which in enumerate(order.tolist()):
        _draw_tile(page, MARGIN + QUERY + TEXT + place * (TILE + GAP), top, near, which)


def _draw_tile(page: "Figure", left: float, top: float, near: Neighbourhood, which: int) -> None:
    colour = colour_of(near.labels[which])
    axes = axes_at(page, left, top, TILE, TILE)
    if len(near.thumbnails):
        show(axes, near.thumbnails[which])
    else:
        axes.set(xticks=[], yticks=[], facecolor=f"{colour}22")
        text = shorten(near.ids[which], most=12)
        style = {"ha": "center", "va": "center", "fontsize": 7}
        axes.text(0.5, 0.5, text, parse_math=False, **style)  # type: ignore[arg-type]
    axes.spines[:].set(color=colour, linewidth=2.5)
    bar = axes_at(page, left, top + TILE + 0.06, TILE, 0.07)
    bar.barh([0], [near.weights[which]], color=INK, height=1)
    bar.set(xlim=(0, 1), ylim=(-0.5, 0.5), xticks=[], yticks=[])
    bar.spines[:].set(color=RULE, linewidth=0.5)
    told = f"{near.similarities[which]:.3f}"
    write(page, left, top + TILE + 0.17, told, fontsize=8, color=MUTED)
