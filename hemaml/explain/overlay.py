"""The images that a segmentation model does best and worst: contours and errors.

One row an image, in falling order of mean foreground Dice: the image, the contours of its truth,
the contours of the prediction, and a map of the pixels that differ.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hemaml.core.dataset import Dataset
from hemaml.core.objective import Model
from hemaml.core.types import UInt8Array
from hemaml.explain import Picture
from hemaml.explain.canvas import (
    INK,
    MUTED,
    axes_at,
    chip,
    class_colour,
    key,
    new_page,
    outline,
    shorten,
    show,
    to_png,
    write,
)
from hemaml.explain.predictions import Predictions, foreground, predict_masks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_EACH = 4
"""Images of the best, and of the worst."""

MISSED, EXTRA, CONFUSED = "#D55E00", "#0072B2", "#CC79A7"
COLUMNS = ("image", "truth", "prediction", "errors")

# Inches: outer margin, sides of a panel and the gap after it, the column of row titles, the head
# with title and key, and a section's heading.
MARGIN, PANEL, GAP, TITLES, HEAD, HEADING = 0.3, 1.9, 0.08, 1.75, 1.15, 0.55


def draw(model: Model, data: Dataset) -> list[Picture]:
    """The four best and the four worst images; with fewer than eight, each of them once.

    Args:
        model: A segmentation model.
        data: Images with masks; class 0 is the background. Sizes may differ.

    Returns:
        One picture, `overlay`, as PNG.

    Raises:
        DataError: The data has no images, or no masks.
    """
    predictions = predict_masks(model, data)
    order = rank(predictions.dice)
    if len(order) < 2 * NUM_EACH:
        sections = [(f"All {len(order)} images, best first", order)]
    else:
        best, worst = order[:NUM_EACH], order[-NUM_EACH:]
        sections = [(f"Best {NUM_EACH}", best), (f"Worst {NUM_EACH}, the last is worst", worst)]
    return [Picture("overlay", png=_page(sections, data, predictions))]


def rank(dice: Sequence[float]) -> list[int]:
    """Indices from the best to the worst; equal ones keep their order.

    Images without a score (NaN) stand after the fourth, so that they are among the shown best or
    worst only where there are too few others.
    """
    scored = sorted((i for i, d in enumerate(dice) if not np.isnan(d)), key=lambda i: -dice[i])
    unscored = [i for i, d in enumerate(dice) if np.isnan(d)]
    return scored[:NUM_EACH] + unscored + scored[NUM_EACH:]


def error_map(image: UInt8Array, predicted: UInt8Array, truth: UInt8Array) -> UInt8Array:
    """The image in pale grey, its wrong pixels in the colour of their kind of error.

    Args:
        image: H x W x 3.
        predicted: H x W class indices.
        truth: H x W class indices.

    Returns:
        H x W x 3; missed foreground, extra foreground and confused foreground classes coloured.
    """
    from matplotlib.colors import to_rgb

    grey = image.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    shown: UInt8Array = (255 - (255 - grey) * 0.4).astype(np.uint8)
    kinds = {
        MISSED: (truth > 0) & (predicted == 0),
        EXTRA: (truth == 0) & (predicted > 0),
        CONFUSED: (truth > 0) & (predicted > 0) & (truth != predicted),
    }
    for colour, where in kinds.items():
        shown[where] = np.round(np.array(to_rgb(colour)) * 255)
    return shown


def _page(
    sections: Sequence[tuple[str, list[int]]], data: Dataset, predictions: Predictions
) -> bytes:
    rows = sum(len(indices) for _, indices in sections)
    width = 2 * MARGIN + TITLES + len(COLUMNS) * (PANEL + GAP) - GAP
    height = 2 * MARGIN + HEAD + len(sections) * HEADING + rows * (PANEL + GAP)
    page = new_page(width, height)
    _head(page, data)
    top = MARGIN + HEAD
    for heading, indices in sections:
        write(page, MARGIN, top + 0.1, heading, fontsize=12, fontweight="bold")
        _column_names(page, top + HEADING - 0.07)
        top += HEADING
        for index in indices:
            _row_title(page, top, data, index, predictions)
            _panels(page, top, data, index, predictions.masks[index])
            top += PANEL + GAP
    return to_png(page)


def _left(column: int) -> float:
    return MARGIN + TITLES + column * (PANEL + GAP)


def _head(page: "Figure", data: Dataset) -> None:
    title = f"Best and worst of {len(data)} images of {shorten(data.name, most=40)}"
    write(page, MARGIN, MARGIN, title, fontsize=15, fontweight="bold")
    write(page, MARGIN, MARGIN + 0.32, "by mean Dice of the foreground classes", color=MUTED)
    contours = [(class_colour(i), name) for i, name in enumerate(data.classes) if i]
    errors = [(MISSED, "missed foreground"), (EXTRA, "extra foreground")]
    if len(contours) > 1:
        errors.append((CONFUSED, "wrong foreground class"))
    for line, (what, entries) in enumerate([("contours", contours), ("errors", errors)]):
        middle = MARGIN + 0.72 + 0.22 * line
        write(page, MARGIN, middle, what, va="center_baseline", color=MUTED)
        key(page, MARGIN + 0.75, middle, entries)


def _column_names(page: "Figure", bottom: float) -> None:
    style = {"va": "bottom", "color": MUTED}
    write(page, MARGIN + TITLES - 0.2, bottom, "Dice", ha="right", **style)
    for column, name in enumerate(COLUMNS):
        write(page, _left(column) + PANEL / 2, bottom, name, ha="center", **style)


def _row_title(page: "Figure", top: float, data: Dataset, index: int, shown: Predictions) -> None:
    """The image's id above a small table: Dice by class and their mean."""
    names = foreground(data)
    scores = shown.scores[index]
    lines = [(name, scores[f"dice/{name}"]) for name in names] + [("mean", shown.dice[index])]
    line = top + PANEL / 2 - 0.095 * len(lines)
    title = shorten(data.ids[index], most=18)
    write(page, MARGIN, line - 0.1, title, fontweight="bold", fontsize=10, va="center")
    for number, (name, dice) in enumerate(lines, start=1):
        style = {"va": "center_baseline", "color": INK if number <= len(names) else MUTED}
        line += 0.19
        if number <= len(names):
            chip(page, MARGIN, line, class_colour(number))
        write(page, MARGIN + 0.18, line, shorten(name, most=13), **style)
        value = "absent" if np.isnan(dice) else f"{dice:.3f}"
        write(page, MARGIN + TITLES - 0.2, line, value, ha="right", **style)


def _panels(page: "Figure", top: float, data: Dataset, index: int, predicted: UInt8Array) -> None:
    image, truth = data.images[index], data.masks[index]
    panels = [axes_at(page, _left(c), top, PANEL, PANEL) for c in range(len(COLUMNS))]
    for axes in panels[:3]:
        show(axes, image)
    outline(panels[1], truth, num_classes=len(data.classes))
    outline(panels[2], predicted, num_classes=len(data.classes))
    show(panels[3], error_map(image, predicted, truth))
