"""A data set at a glance: a grid of its images, and its facts in words."""

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import numpy as np

from hemaml.core.dataset import Dataset
from hemaml.core.errors import DataError
from hemaml.explain.canvas import (
    MUTED,
    axes_at,
    class_colour,
    key,
    new_page,
    outline,
    shorten,
    show,
    to_png,
    write,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 6
# Inches: outer margin, sides of an image and the gap after it, the caption below it, the head.
MARGIN, PANEL, GAP, CAPTION, HEAD = 0.3, 1.6, 0.12, 0.45, 0.95


def contact_sheet(data: Dataset, *, num: int = 24) -> bytes:
    """A grid of images as PNG, each with its id, its label and the contours of its mask.

    Args:
        data: At least one image; masks and labels are shown where there are any.
        num: Images at most. Labels share them as equally as their counts allow.

    Raises:
        DataError: The data has no images.
    """
    if not len(data):
        raise DataError(f"A contact sheet needs an image, but {data.name!r} has none.")
    chosen = sample(data, num=num)
    rows = -(-len(chosen) // COLUMNS)
    width = 2 * MARGIN + COLUMNS * (PANEL + GAP) - GAP
    page = new_page(width, MARGIN + HEAD + rows * (PANEL + CAPTION) + MARGIN)
    _head(page, data, len(chosen))
    for place, index in enumerate(chosen):
        row, column = divmod(place, COLUMNS)
        left, top = MARGIN + column * (PANEL + GAP), MARGIN + HEAD + row * (PANEL + CAPTION)
        _item(page, left, top, data, index)
    return to_png(page)


def sample(data: Dataset, *, num: int) -> list[int]:
    """Indices of `num` images, ordered by label; all of them if there are no more.

    Labels take turns until `num` is reached, so none has two more than another that has images
    left. The images of a label are evenly spaced in the order of the data.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for index in range(len(data)):
        members[data.labels[index] if data.labels else 0].append(index)
    groups = [members[label] for label in sorted(members)]
    # Label n once for each of its images, one image of every label a turn: 0 1 2, 0 1 2, 0 2, 0.
    turns = [n for turn in range(len(data)) for n, g in enumerate(groups) if turn < len(g)]
    shares = Counter(turns[:num])
    return [
        group[int(spot)]
        for n, group in enumerate(groups)
        for spot in np.linspace(0, len(group) - 1, shares[n])
    ]


def facts(data: Dataset) -> dict[str, str]:
    """What a data set is, by name of the fact, each as one line of text."""
    return {
        "name": data.name,
        "images": str(len(data)),
        "size": _sizes(data),
        "classes": ", ".join(data.classes),
        "pixels": _pixel_shares(data),
        "labels": _label_counts(data),
        "groups": str(len(set(data.groups))) if data.groups else "none",
        "digest": data.digest,
        "source": data.source or "unknown",
    }


def label_name(data: Dataset, label: int) -> str:
    """The class of a classification set; a number where labels are not classes but cell types."""
    return f"label {label}" if len(data.masks) else data.classes[label]


def _head(page: "Figure", data: Dataset, num: int) -> None:
    write(page, MARGIN, MARGIN, shorten(data.name, most=40), fontsize=15, fontweight="bold")
    line = f"{num} of {len(data)} images, {_sizes(data)}"
    write(page, MARGIN, MARGIN + 0.32, line, color=MUTED)
    if len(data.masks):
        colours = [(class_colour(i), name) for i, name in enumerate(data.classes) if i]
        key(page, MARGIN, MARGIN + 0.68, colours)


def _item(page: "Figure", left: float, top: float, data: Dataset, index: int) -> None:
    axes = axes_at(page, left, top, PANEL, PANEL)
    show(axes, data.images[index])
    if len(data.masks):
        outline(axes, data.masks[index], num_classes=len(data.classes))
    below = top + PANEL + 0.05
    write(page, left, below, shorten(data.ids[index], most=20), fontsize=8, fontweight="bold")
    if data.labels:
        name = shorten(label_name(data, data.labels[index]), most=22)
        write(page, left, below + 0.15, name, fontsize=8, color=MUTED)


def _sizes(data: Dataset) -> str:
    """Height and width, smallest to largest."""
    if not len(data):
        return "none"
    sides = np.array([image.shape[:2] for image in data.images])
    (low_h, low_w), (high_h, high_w) = sides.min(axis=0), sides.max(axis=0)
    height = f"{low_h}" if low_h == high_h else f"{low_h} to {high_h}"
    width = f"{low_w}" if low_w == high_w else f"{low_w} to {high_w}"
    return f"{height} pixels high, {width} wide"


def _pixel_shares(data: Dataset) -> str:
    """Share of each class in the pixels of all masks."""
    if not len(data.masks):
        return "no masks"
    num_classes = len(data.classes)
    counts = np.zeros(num_classes, dtype=np.int64)
    for mask in data.masks:
        counts += np.bincount(mask.ravel(), minlength=num_classes)
    shares = counts / counts.sum()
    return ", ".join(f"{n} {share:.1%}" for n, share in zip(data.classes, shares, strict=True))


def _label_counts(data: Dataset) -> str:
    counts = sorted(Counter(data.labels).items())
    return ", ".join(f"{label_name(data, label)}: {count}" for label, count in counts) or "none"
