"""Embeddings of superpixels in the plane, by UMAP, coloured by their classes, and how far apart.

The metric loss of the SMGNN asks for cosines, so embeddings are compared by their directions. The
silhouette says in a number what the picture shows: 1 where each superpixel is near those of its
class and far from all others, 0 where classes overlap.

Sources: section 4.5 and figure 12 of Jiang et al. 2024, which colour by eq. 4.2; P. Rousseeuw:
Silhouettes (1987).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

import numpy as np

from hemaml.core.dataset import Dataset
from hemaml.core.errors import DataError
from hemaml.core.types import Float32Array, Int32Array, Int64Array, UInt8Array
from hemaml.explain import Picture
from hemaml.explain.canvas import MUTED, RULE, new_page, to_png
from hemaml.explain.outcome import HEAD, MARGIN, class_key, colour_of, head, html_page, number
from hemaml.explain.projection import PANEL, draw_panel, umap
from hemaml.ops.region_graph import node_targets

EACH = 500
"""Superpixels of a class in the picture and in the silhouette, evenly spaced in the images."""
KEY, SIDE = 0.35, 1.6 * PANEL


class Embeds(Protocol):
    """A model on superpixels."""

    def embed(self, images: Sequence[UInt8Array]) -> list[tuple[Int32Array, Float32Array]]:
        """The superpixels of each image: labels H x W, and their embeddings, K x D."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """Superpixels of all images, as many of each class as there are, up to `EACH`.

    Attributes:
        embeddings: N x D, of length 1.
        classes: N, by eq. 4.2.
        images: N indices of their images.
        total: How many superpixels they were drawn from.
    """

    embeddings: Float32Array
    classes: Int64Array
    images: Int64Array
    total: int

    @property
    def silhouette(self) -> float:
        """The mean of all, by cosine distance; NaN for less than two classes."""
        from sklearn.metrics import silhouette_score

        if len(np.unique(self.classes)) < 2:
            return float("nan")
        return float(silhouette_score(self.embeddings, self.classes, metric="cosine"))


def draw(model: Embeds, data: Dataset) -> list[Picture]:
    """One picture, `embeddings`, as PNG and as HTML that needs no network.

    Args:
        model: A model on superpixels.
        data: Images with masks.

    Raises:
        DataError: The data has no images, or no masks.
    """
    shown = sampled(model, data)
    places = umap(shown.embeddings)
    return [Picture("embeddings", png=_png(shown, data, places), html=_html(shown, data, places))]


def measure(model: Embeds, data: Dataset, device: str = "cpu") -> dict[str, float]:
    """`explain/silhouette` of the superpixels' classes among their embeddings, -1 to 1.

    Args:
        model: A model on superpixels, asked where its network is.
        data: Images with masks.
        device: Of a figure that computes; this one compares on the CPU.

    Raises:
        DataError: The data has no images, or no masks.
    """
    return {"explain/silhouette": sampled(model, data).silhouette}


def sampled(model: Embeds, data: Dataset) -> Sampled:
    """Superpixels with their classes. Raises `DataError` as `draw`."""
    if not len(data) or len(data.masks) != len(data):
        raise DataError(
            f"Classes of superpixels need images with masks, but {data.name!r} has {len(data)} "
            f"images and {len(data.masks)} masks. Use segmentation data, or leave this figure out."
        )
    found = model.embed(data.images)
    num = len(data.classes)
    levels = [
        node_targets(labels, mask, num_classes=num)
        for (labels, _), mask in zip(found, data.masks, strict=True)
    ]
    classes = np.floor(np.concatenate(levels) * (num - 1) + 0.5).astype(np.int64)
    images = np.repeat(np.arange(len(data)), [len(each) for each in levels])
    members = (np.flatnonzero(classes == index) for index in range(num))
    chosen = np.concatenate(
        [m[np.linspace(0, len(m) - 1, min(EACH, len(m))).astype(np.int64)] for m in members]
    )
    embeddings = np.concatenate([each for _, each in found])[chosen]
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.maximum(lengths, 1e-12)
    return Sampled(unit.astype(np.float32), classes[chosen], images[chosen], len(classes))


def _titles(shown: Sampled, data: Dataset) -> tuple[str, str]:
    told = (
        f"UMAP of {len(shown.classes):,} of {shown.total:,} superpixels of {len(data):,} images; "
    )
    told += f"silhouette {number(shown.silhouette)}"
    return "Embeddings of superpixels", told


def _png(shown: Sampled, data: Dataset, places: Float32Array) -> bytes:
    page = new_page(2 * MARGIN + SIDE, 2 * MARGIN + HEAD + KEY + SIDE)
    head(page, *_titles(shown, data))
    class_key(page, data.classes)
    draw_panel(page, MARGIN, MARGIN + HEAD + KEY, shown.classes, places, side=SIDE)
    return to_png(page)


def _html(shown: Sampled, data: Dataset, places: Float32Array) -> str:
    from plotly.graph_objects import Figure, Scatter

    page = Figure()
    for index, name in enumerate(data.classes):
        inside = np.flatnonzero(shown.classes == index)
        points = Scatter(
            x=places[inside, 0], y=places[inside, 1], mode="markers", name=escape(name),
            text=[escape(data.ids[shown.images[i]]) for i in inside], hovertemplate="%{text}",
            marker={"color": colour_of(index), "size": 6, "opacity": 0.7},
        )  # fmt: skip
        page.add_trace(points)
    axis = {"showticklabels": False, "zeroline": False, "linecolor": RULE, "mirror": True}
    page.update_xaxes(**axis)
    page.update_yaxes(**axis, scaleanchor="x")
    return html_page(page, *_titles(shown, data), height=760, legend={"font": {"color": MUTED}})
