"""Drawing on a white page measured in inches from its top left corner, and the shared colours.

Axes and text stand at places that are known before anything is drawn, so panels align and no text
is clipped. `Figure` and its Agg canvas are used without pyplot: no window system, no global state.

Colours are those of M. Okabe, K. Ito: Color Universal Design (2008), which stay apart for all
common types of colour vision. Yellow and sky blue also stand out from stains; a dark seam around
each line keeps them visible on pale ground.
"""

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from hemaml.core.types import UInt8Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

DPI = 96
INK, MUTED, RULE = "#1a1a1a", "#666666", "#cccccc"
CLASS_COLOURS = ("#56B4E9", "#F0E442", "#E69F00", "#CC79A7", "#009E73", "#D55E00", "#0072B2")
"""Of the foreground classes, in index order; from the eighth on they repeat."""
BACKGROUND_COLOUR = "#bbbbbb"


def class_colour(index: int) -> str:
    """Colour of a class by its index; 0 is the background."""
    if index == 0:
        return BACKGROUND_COLOUR
    return CLASS_COLOURS[(index - 1) % len(CLASS_COLOURS)]


def new_page(width: float, height: float) -> "Figure":
    """An empty white page, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, facecolor="white")


def axes_at(page: "Figure", left: float, top: float, width: float, height: float) -> "Axes":
    """Axes at a rectangle of the page, in inches."""
    wide, high = page.get_size_inches()
    return page.add_axes((left / wide, 1 - (top + height) / high, width / wide, height / high))


def write(page: "Figure", left: float, top: float, text: str, **style: Any) -> "Text":
    """Text at a point of the page, in inches; never read as mathematics.

    Args:
        page: Where to write.
        left: The point that `ha` aligns with (its left, unless told).
        top: The point that `va` aligns with (its top, unless told).
        text: May have several lines.
        **style: Properties of `matplotlib.text.Text`.
    """
    wide, high = page.get_size_inches()
    style = {"ha": "left", "va": "top", "fontsize": 9, "color": INK, "parse_math": False, **style}
    return page.text(left / wide, 1 - top / high, text, **style)


def chip(page: "Figure", left: float, middle: float, colour: str, *, side: float = 0.11) -> None:
    """A small square of a colour, its left edge and vertical middle in inches."""
    from matplotlib.patches import Rectangle

    wide, high = page.get_size_inches()
    corner = (left / wide, 1 - (middle + side / 2) / high)
    square = Rectangle(corner, side / wide, side / high, facecolor=colour, edgecolor=INK, lw=0.6)
    page.add_artist(square)


def key(page: "Figure", left: float, middle: float, entries: list[tuple[str, str]]) -> None:
    """Colours and their meaning in one line: chip, text, chip, text."""
    for colour, meaning in entries:
        chip(page, left, middle, colour)
        text = write(page, left + 0.18, middle, shorten(meaning, most=22), va="center_baseline")
        left += 0.18 + text.get_window_extent().width / DPI + 0.25


def show(axes: "Axes", image: UInt8Array) -> None:
    """An H x W x 3 image, undistorted and without ticks, in a hairline that bounds white ones."""
    axes.imshow(image)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=RULE, linewidth=0.6)


def outline(axes: "Axes", mask: UInt8Array, *, num_classes: int) -> None:
    """Contours of every foreground class of an H x W mask; an absent class has none."""
    from matplotlib.patheffects import withStroke
    from skimage.measure import find_contours

    seam = [withStroke(linewidth=2.4, foreground="#000000b0")]
    for index in range(1, num_classes):
        # The frame of zeros closes the contours of regions that touch the border.
        framed = np.pad(mask == index, 1)
        for line in find_contours(framed, 0.5):  # type: ignore[no-untyped-call]
            y, x = (line - 1).T
            axes.plot(x, y, color=class_colour(index), linewidth=1.2, path_effects=seam)


def shorten(text: str, *, most: int) -> str:
    """The text, its middle left out where it has more than `most` characters."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def to_png(page: "Figure") -> bytes:
    """The page as PNG, opaque."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(page)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, :3]).save(buffer, "png", optimize=True)
    return buffer.getvalue()
