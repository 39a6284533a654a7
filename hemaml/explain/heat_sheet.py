"""Pages of heat maps: a row an image, its map, the map over it, and what is said of it.

Sizes are in inches. Heat has one scale, blue to red, from 0 to the most of its map. What no tile
shows the model is grey: it may be whatever it is, the model has not seen it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hemaml.core.types import Float32Array, UInt8Array
from hemaml.explain.canvas import INK, MUTED, RULE, axes_at, new_page, shorten, show, to_png, write
from hemaml.explain.heat_maps import Explained
from hemaml.explain.outcome import HEAD, MARGIN, colour_of, head

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANEL, GAP, TEXT, NAMES, KEY, SPACE = 2.1, 0.1, 2.4, 0.32, 0.35, 0.25
SHOWN_PIXELS = 480
"""Of the longer side of an image on a page; more would only be thrown away."""
UNSEEN = 215
"""The grey of what the model has not seen, which no heat has."""
RIGHT, WRONG = "#009E73", "#D55E00"


@dataclass(frozen=True, slots=True)
class Row:
    """An image of a page.

    Attributes:
        name: What it is called.
        label: Its true class, or None where that is unknown.
        found: What each model says of it; the first one's map is shown alone, too.
    """

    name: str
    label: int | None
    found: Sequence[Explained]


def overlay(found: Explained) -> UInt8Array:
    """An image with its map over it: H x W x 3.

    What is cold stays as it is. What is hot takes the colour of its heat and keeps the light and
    dark of the tissue, so that both can be judged. What the model has not seen is pale and grey.
    """
    image, heat = found.image, found.heat
    grey = image.mean(axis=-1, keepdims=True)
    low, high = np.percentile(grey, (2, 98))
    light = 0.45 + 0.65 * np.clip((grey - low) / max(high - low, 1), 0, 1)
    tinted = np.clip(coloured(heat) * light, 0, 255)
    strength = 0.75 * np.clip(heat, 0, 1)[..., None] ** 0.7
    mixed = image * (1 - strength) + tinted * strength
    mixed = np.where(found.shown[..., None], mixed, 0.3 * grey + 0.7 * UNSEEN)
    return np.asarray(mixed.round().astype(np.uint8))


def heat_picture(found: Explained) -> UInt8Array:
    """A map alone: H x W x 3."""
    return np.where(found.shown[..., None], coloured(found.heat), np.uint8(UNSEEN))


def coloured(heat: Float32Array) -> UInt8Array:
    """Heat as colours: H x W x 3."""
    from matplotlib import colormaps

    # The last tenth of the scale is dark again.
    return np.asarray(colormaps["turbo"](np.clip(heat, 0, 1) * 0.9, bytes=True)[..., :3])


def single_sheet(
    title: str, below: str, classes: Sequence[str], sections: Sequence[tuple[str, Sequence[Row]]]
) -> bytes:
    """Images of one model in sections: image, heat map, overlay, probabilities; as PNG."""
    rows = [row for _, section in sections for row in section]
    panel = _panel_height(rows)
    each = panel + GAP
    names = ("image", "heat map", "overlay")
    width = 2 * MARGIN + len(names) * (PANEL + GAP) + TEXT + 0.15
    blocks = [max(len(section) * each, NAMES) for _, section in sections]
    height = MARGIN + HEAD + KEY + sum(SPACE + NAMES + block for block in blocks) + MARGIN
    page = new_page(width, height)
    head(page, title, below)
    heat_key(page, MARGIN, MARGIN + HEAD, classes, rows)
    top = MARGIN + HEAD + KEY
    for (heading, section), block in zip(sections, blocks, strict=True):
        top += SPACE + NAMES
        write(page, MARGIN, top - 0.07, heading, fontsize=12, fontweight="bold", va="bottom")
        if section:
            column_names(page, top - 0.07, names)
        else:
            write(page, MARGIN, top, "no images", color=MUTED)
        for place, row in enumerate(section):
            found = small(row.found[0])
            at = top + place * each
            for column, pixels in enumerate((found.image, heat_picture(found), overlay(found))):
                show(axes_at(page, left_of(column), at, PANEL, panel), pixels)
            told(page, left_of(len(names)) + 0.1, at, panel, classes, row, found)
        top += block
    return to_png(page)


def comparison_sheet(
    title: str, below: str, classes: Sequence[str], models: Sequence[str], rows: Sequence[Row]
) -> bytes:
    """The same images by several models: a row an image, a column a model; as PNG."""
    panel = _panel_height(rows)
    words = 0.26 + 0.19 * len(classes)
    each = panel + words + 0.22
    width = max(2 * MARGIN + (1 + len(models)) * (PANEL + GAP), 7.5)
    page = new_page(width, 2 * MARGIN + HEAD + KEY + NAMES + len(rows) * each)
    head(page, title, below)
    heat_key(page, MARGIN, MARGIN + HEAD, classes, rows)
    top = MARGIN + HEAD + KEY + NAMES
    column_names(page, top - 0.07, ["image", *(shorten(name, most=27) for name in models)])
    for row in rows:
        show(axes_at(page, left_of(0), top, PANEL, panel), small(row.found[0]).image)
        write(page, left_of(0), top + panel + 0.1, shorten(row.name, most=24), fontweight="bold")
        if row.label is not None:
            is_class(page, left_of(0), top + panel + 0.38, classes, row.label)
        for column, found in enumerate(row.found, start=1):
            show(axes_at(page, left_of(column), top, PANEL, panel), overlay(small(found)))
            bars(page, left_of(column), top + panel + 0.1, PANEL, classes, found, row.label)
        top += each
    return to_png(page)


def small(found: Explained) -> Explained:
    """The same at the size of a page."""
    from PIL import Image

    height, width = found.image.shape[:2]
    scale = min(SHOWN_PIXELS / max(height, width), 1)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    image = Image.fromarray(found.image).resize(size, Image.Resampling.BOX)
    heat = Image.fromarray(found.heat).resize(size, Image.Resampling.BILINEAR)
    shown = Image.fromarray(found.shown).resize(size, Image.Resampling.NEAREST)
    return replace(found, image=np.asarray(image), heat=np.asarray(heat), shown=np.asarray(shown))


def heat_key(
    page: "Figure", left: float, middle: float, classes: Sequence[str], rows: Sequence[Row]
) -> None:
    """The scale of all maps in one line, and whose maps they are."""
    write(page, left, middle, "heat", va="center_baseline", color=MUTED)
    axes = axes_at(page, left + 0.42, middle - 0.06, 1.3, 0.12)
    axes.imshow(coloured(np.linspace(0, 1, 256, dtype=np.float32)[None]), aspect="auto")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=RULE, linewidth=0.6)
    shown = [found for row in rows for found in row.found]
    whose = "the most probable one"
    if any(found.target != found.said for found in shown):
        whose = shorten(classes[shown[0].target], most=20)
    text = f"none to most of its map; the class explained is {whose}"
    if not all(found.shown.all() for found in shown):
        text += "; grey: not shown to the model"
    write(page, left + 1.82, middle, text, va="center_baseline", color=MUTED)


def left_of(column: int) -> float:
    """Left edge of a column of panels."""
    return MARGIN + column * (PANEL + GAP)


def column_names(page: "Figure", bottom: float, names: Sequence[str]) -> None:
    """Names centred above the panels."""
    for column, name in enumerate(names):
        middle = left_of(column) + PANEL / 2
        write(page, middle, bottom, name, ha="center", va="bottom", color=MUTED)


def told(
    page: "Figure",
    left: float,
    top: float,
    panel: float,
    classes: Sequence[str],
    row: Row,
    found: Explained,
) -> None:
    """Name, truth and probabilities beside the panels of a row, in its vertical middle."""
    line = top + max((panel - 0.75 - 0.19 * len(classes)) / 2, 0)
    write(page, left, line, shorten(row.name, most=24), fontweight="bold")
    if row.label is not None:
        is_class(page, left, line + 0.35, classes, row.label)
    bars(page, left, line + 0.62, TEXT, classes, found, row.label)


def is_class(
    page: "Figure", left: float, middle: float, classes: Sequence[str], label: int
) -> None:
    """The truth of an image in one line."""
    text = f"is {shorten(classes[label], most=20)}"
    write(page, left, middle, text, va="center_baseline", color=MUTED)


def bars(
    page: "Figure",
    left: float,
    top: float,
    width: float,
    classes: Sequence[str],
    found: Explained,
    label: int | None,
) -> None:
    """A bar and a figure for each class; the most probable in bold, marked as right or wrong."""
    for index, name in enumerate(classes):
        middle = top + 0.095 + 0.19 * index
        said = index == found.said
        style = {"va": "center_baseline", "fontweight": "bold" if said else "normal"}
        style["color"] = INK if said else MUTED
        write(page, left, middle, shorten(name, most=10), fontsize=8, **style)
        bar = axes_at(page, left + 0.72, middle - 0.055, width - 1.42, 0.11)
        bar.barh([0], [float(found.probabilities[index])], height=1, color=colour_of(index))
        bar.set(xlim=(0, 1), ylim=(-0.5, 0.5), xticks=[], yticks=[])
        bar.spines[:].set(color=RULE, linewidth=0.5)
        share = f"{found.probabilities[index]:.0%}"
        write(page, left + width - 0.25, middle, share, ha="right", fontsize=8, **style)
        if said and label is not None:
            mark, colour = ("✓", RIGHT) if label == found.said else ("✗", WRONG)
            style |= {"color": colour, "fontweight": "bold"}
            write(page, left + width - 0.18, middle, mark, fontsize=9, **style)


def _panel_height(rows: Sequence[Row]) -> float:
    """What the tallest image needs at the width of a panel; a square at most."""
    sides = [found.image.shape for row in rows for found in row.found]
    return PANEL * min(max((h / w for h, w, _ in sides), default=1.0), 1.0)
