"""How a model sees images: its features in the plane, by t-SNE and by UMAP, stage by stage.

Neighbours in the plane are neighbours among the features; distances between far groups, and sizes
of groups, mean nothing in either.

Sources: L. van der Maaten, G. Hinton: Visualizing data using t-SNE (2008); L. McInnes, J. Healy,
J. Melville: UMAP (2018).
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from hemaml.core.dataset import Dataset
from hemaml.core.errors import DataError
from hemaml.core.types import Float32Array, Int64Array
from hemaml.explain import Picture
from hemaml.explain.canvas import MUTED, RULE, axes_at, new_page, shorten, to_png, write
from hemaml.explain.contact_sheet import sample
from hemaml.explain.outcome import HEAD, MARGIN, class_key, colour_of, head, html_page
from hemaml.tasks.leukemia import Classifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from plotly.graph_objects import Figure as HtmlFigure

MOST = 2000
"""Images in a picture; of more, labels share the places evenly."""
FEWEST = 5
SEED = 0
PANEL, GAP, CAPTION, KEY = 3.4, 0.25, 0.3, 0.35

Planes = dict[tuple[str, str], Float32Array]
"""N x 2 places by name of the method and of the stage."""


def draw(model: Classifier, data: Dataset) -> list[Picture]:
    """The stages that `embed` of a classifier gives, each by both methods, as `projection`.

    Args:
        model: A classifier.
        data: Images; of fewer than five nothing is drawn.

    Raises:
        DataError: They have no labels.
    """
    if len(data.labels) != len(data):
        raise DataError(
            f"A projection needs labels, but {data.name!r} has {len(data.labels)} of {len(data)} "
            "images. Use data that has them."
        )
    if len(data) < FEWEST:
        return []
    shown = data if len(data) <= MOST else data.subset(sorted(sample(data, num=MOST)))
    planes = projected(model.embed(shown.images))
    return [Picture("projection", png=_png(shown, data, planes), html=_html(shown, data, planes))]


def projected(stages: Mapping[str, Float32Array]) -> Planes:
    """Both methods on each stage, fixed by a seed.

    Args:
        stages: N x d features by name, N at least 5.
    """
    methods = {"t-SNE": t_sne, "UMAP": umap}
    return {
        (method, stage): project(features)
        for method, project in methods.items()
        for stage, features in stages.items()
    }


def t_sne(features: Float32Array) -> Float32Array:
    """N x 2 places of N x d features, after at most 50 principal components."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    count, dim = features.shape
    if features.std() == 0:  # nothing to be told apart: components would be 0 / 0
        return np.zeros((count, 2), np.float32)
    reduced = PCA(min(50, count, dim), random_state=SEED).fit_transform(features)
    perplexity = min(30.0, (count - 1) / 3)
    places = TSNE(perplexity=perplexity, random_state=SEED).fit_transform(reduced)
    return np.asarray(places, np.float32)


def umap(features: Float32Array) -> Float32Array:
    """N x 2 places of N x d features."""
    count = len(features)
    start = "spectral" if count > 20 else "random"
    with warnings.catch_warnings(), _own_threads():
        # That TensorFlow is absent, and that a seed means one thread.
        warnings.simplefilter("ignore")
        from umap import UMAP

        _keep_compiled()
        reducer = UMAP(n_neighbors=min(15, count - 1), init=start, random_state=SEED, n_jobs=1)
        return np.asarray(reducer.fit_transform(features), np.float32)


def _keep_compiled() -> None:
    """Lets numba keep UMAP's compiled functions on disk, which UMAP compiles for 8 s a process."""
    from numba.core.dispatcher import Dispatcher
    from umap import layouts, spectral, umap_, utils

    functions = [f for module in (layouts, spectral, umap_, utils) for f in vars(module).values()]
    with suppress(RuntimeError):  # no folder of numba's can be written
        for function in functions:
            if isinstance(function, Dispatcher):
                function.enable_caching()


@contextmanager
def _own_threads() -> Iterator[None]:
    """Takes back what UMAP's compiled code sets: the OpenMP threads of the whole process.

    With two threads on a busy machine, a small product of matrices waits 6 ms for the second one.
    """
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _titles(shown: Dataset, data: Dataset) -> tuple[str, str]:
    part = "" if len(shown) == len(data) else f"{len(shown)} of "
    below = f"{part}{len(data)} images of {shorten(data.name, most=40)}, a point each"
    return "Features in the plane", below


def _grid(planes: Planes) -> tuple[list[str], list[str]]:
    """Stages (rows) and methods (columns)."""
    return list(dict.fromkeys(s for _, s in planes)), list(dict.fromkeys(m for m, _ in planes))


def _png(shown: Dataset, data: Dataset, planes: Planes) -> bytes:
    stages, methods = _grid(planes)
    width = 2 * MARGIN + len(methods) * (PANEL + GAP) - GAP
    height = 2 * MARGIN + HEAD + KEY + len(stages) * (CAPTION + PANEL + GAP) - GAP
    page = new_page(width, height)
    head(page, *_titles(shown, data))
    class_key(page, shown.classes)
    for (method, stage), places in planes.items():
        left = MARGIN + methods.index(method) * (PANEL + GAP)
        top = MARGIN + HEAD + KEY + stages.index(stage) * (CAPTION + PANEL + GAP)
        write(page, left, top, f"{method} of {stage}", fontsize=11, fontweight="bold")
        draw_panel(page, left, top + CAPTION, shown.labels, places)
    return to_png(page)


def draw_panel(
    page: "Figure",
    left: float,
    top: float,
    labels: Sequence[int] | Int64Array,
    places: Float32Array,
    *,
    side: float = PANEL,
) -> None:
    """Points in the colours of their labels.

    Args:
        page: Where to draw.
        left: Of the square, in inches.
        top: Likewise.
        labels: N classes.
        places: N x 2.
        side: Of the square, in inches.
    """
    axes = axes_at(page, left, top, side, side)
    order = np.random.default_rng(SEED).permutation(len(places))  # no class lies above all others
    colours = [colour_of(int(labels[i])) for i in order]
    size = float(np.clip(6000 / len(places), 6, 40))
    axes.scatter(
        places[order, 0],
        places[order, 1],
        s=size,
        c=colours,
        alpha=0.75,
        edgecolor="white",
        linewidth=0.3,
    )
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=RULE, linewidth=0.8)
    axes.margins(0.05)


def _html(shown: Dataset, data: Dataset, planes: Planes) -> str:
    from plotly.subplots import make_subplots

    stages, methods = _grid(planes)
    titles = [f"{method} of {escape(stage)}" for stage in stages for method in methods]
    page: HtmlFigure = make_subplots(
        len(stages), len(methods), subplot_titles=titles, horizontal_spacing=0.04,
        vertical_spacing=0.08,
    )  # fmt: skip
    for (method, stage), places in planes.items():
        spot = {"row": stages.index(stage) + 1, "col": methods.index(method) + 1}
        for index in range(len(shown.classes)):
            _add_points(page, shown, places, index, spot, legend=spot == {"row": 1, "col": 1})
    axis = {"showticklabels": False, "zeroline": False, "linecolor": RULE, "mirror": True}
    page.update_xaxes(**axis)
    page.update_yaxes(**axis)
    height = 130 + 480 * len(stages)
    return html_page(page, *_titles(shown, data), height=height, legend={"font": {"color": MUTED}})


def _add_points(
    page: "HtmlFigure",
    data: Dataset,
    places: Float32Array,
    index: int,
    spot: dict[str, int],
    *,
    legend: bool,
) -> None:
    from plotly.graph_objects import Scatter

    inside = np.flatnonzero(np.asarray(data.labels) == index)
    points = Scatter(
        x=places[inside, 0],
        y=places[inside, 1],
        mode="markers",
        name=escape(data.classes[index]),
        legendgroup=str(index),
        showlegend=legend,
        text=[escape(data.ids[i]) for i in inside],
        hovertemplate="%{text}",
        marker={"color": colour_of(index), "size": 7, "opacity": 0.8},
    )
    page.add_trace(points, **spot)
