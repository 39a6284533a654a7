"""The same heat maps while a network's weights are replaced by random ones, from the head down.

Source: J. Adebayo et al.: Sanity checks for saliency maps. NeurIPS 2018, section 3.1. A map that
stays as it was when learning is undone explains nothing.
"""

from collections.abc import Sequence
from dataclasses import replace

from hemaml.core.dataset import Dataset
from hemaml.explain.canvas import MUTED, axes_at, new_page, shorten, show, to_png, write
from hemaml.explain.faithfulness import SEED, heat_of, randomised, similarity
from hemaml.explain.heat_maps import explained
from hemaml.explain.heat_sheet import overlay, small
from hemaml.explain.outcome import HEAD, MARGIN, head
from hemaml.tasks._classification import Explainable

PANEL, GAP, NAMES, BELOW = 1.4, 0.1, 0.3, 0.35
"""Inches: width of an image, the gaps, the names of the columns, the line below an image."""


def sanity_sheet(model: Explainable, data: Dataset, indices: Sequence[int]) -> bytes:
    """A row an image, a column a part more that is random; as PNG.

    Args:
        model: A classifier with maps; left as it is.
        data: Images.
        indices: Of those that are shown.
    """
    stages = [name for name, _ in model.network.backbone.named_children()][::-1]
    columns = ["image", "trained", "head random", *(f"and {name}" for name in stages)]
    found = list(explained(model, [data.images[index] for index in indices]))
    tallest = max(f.image.shape[0] / f.image.shape[1] for f in found)
    panel = PANEL * min(tallest, 1)
    top, each = MARGIN + HEAD + NAMES, panel + BELOW
    width = 2 * MARGIN + len(columns) * (PANEL + GAP) - GAP
    page = new_page(width, top + len(found) * each + MARGIN)
    below = "weights drawn anew from the head down; below each map, its rank correlation with the"
    head(page, "Do the maps show what was learned?", f"{below} trained one: low is good")
    for column, name in enumerate(columns):
        middle = MARGIN + column * (PANEL + GAP) + PANEL / 2
        write(page, middle, top - 0.07, name, ha="center", va="bottom", color=MUTED)
    for row, (index, one) in enumerate(zip(indices, found, strict=True)):
        place = top + row * each
        show(axes_at(page, MARGIN, place, PANEL, panel), small(one).image)
        style = {"fontsize": 8, "fontweight": "bold"}
        write(page, MARGIN, place + panel + 0.05, shorten(data.ids[index], most=17), **style)
    for column in range(1, len(columns)):
        left = MARGIN + column * (PANEL + GAP)
        network = model.network
        if column > 1:
            network = randomised(network, SEED, stages=column - 2)
        for row, one in enumerate(found):
            heat = heat_of(model, network, one.image, one.target)
            place = top + row * each
            pixels = overlay(small(replace(one, heat=heat)))
            show(axes_at(page, left, place, PANEL, panel), pixels)
            told = f"{similarity(one, heat):+.2f}" if column > 1 else ""
            style = {"ha": "center", "fontsize": 8, "color": MUTED}
            write(page, left + PANEL / 2, place + panel + 0.05, told, **style)
    return to_png(page)
