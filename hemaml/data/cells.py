"""The five types of white blood cells of generated smears: outlines, nuclei, stains.

A cell is two shapes, its body and its nucleus (signed distances, see `shapes`), and layers of dye.
What tells the types apart is what a haematologist looks at: the number and shape of the lobes, the
share of the nucleus, the tint of the cytoplasm, the granules.
Source: Barbara J. Bain, "Blood Cells: A Practical Guide", chapter 3 (normal leucocytes).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from hemaml.core.types import Float32Array
from hemaml.data.shapes import Grid, Place, coverage, smooth_cut, smooth_union

Dye = tuple[float, float, float]
"""Optical density in R, G, B of a fully stained layer."""

CHROMATIN: Dye = (1.25, 1.85, 0.62)
PINK: Dye = (0.10, 0.26, 0.17)
BLUE: Dye = (0.42, 0.33, 0.08)
GREY_BLUE: Dye = (0.40, 0.37, 0.17)
ORANGE: Dye = (0.16, 0.62, 0.45)
DARK_PURPLE: Dye = (1.30, 1.75, 0.60)


@dataclass(frozen=True, slots=True)
class Cell:
    """A drawn cell.

    Attributes:
        body: H x W signed distance to the outline.
        nucleus: H x W signed distance to the nucleus, which lies within the body.
        layers: Stain of the cell: H x W density of a dye each.
    """

    body: Float32Array
    nucleus: Float32Array
    layers: list[tuple[Float32Array, Dye]]


@dataclass(frozen=True, slots=True)
class Kind:
    """What tells one cell type from another.

    Attributes:
        name: `neutrophil`.
        radius: Range of the radius in pixels of an image of 120.
        ruffle: Irregularity of the outline, as a share of the radius.
        tint: Dye of the cytoplasm.
        cytoplasm: Range of the strength of `tint`; low means close to the background.
        chromatin: Range of the strength of the nucleus.
        nucleus: Draws the nucleus from random numbers, grid, centre and radius of the cell.
        granules: Granules per pixel of the cell, 0 for none.
        granule_dye: Dye of the granules.
        granules_cover_nucleus: Whether granules lie over the nucleus, too.
    """

    name: str
    radius: tuple[float, float]
    ruffle: float
    tint: Dye
    cytoplasm: tuple[float, float]
    chromatin: tuple[float, float]
    nucleus: Callable[[np.random.Generator, Grid, Place, float], Float32Array]
    granules: float = 0.0
    granule_dye: Dye = PINK
    granules_cover_nucleus: bool = False


def draw_cell(
    rng: np.random.Generator, grid: Grid, kind: Kind, centre: Place, radius: float
) -> Cell:
    """One cell of a kind, with its stain.

    Args:
        rng: Source of all that varies.
        grid: Pixels of the image.
        kind: Type of the cell.
        centre: Row and column of the cell.
        radius: Mean radius of the body in pixels.
    """
    body = grid.ellipse(centre, radius, stretch=rng.uniform(1, 1.18), turn=rng.uniform(0, math.pi))
    body += grid.noise(rng, radius * 0.55) * np.float32(radius * kind.ruffle)
    nucleus = kind.nucleus(rng, grid, centre, radius)
    nucleus += grid.noise(rng, radius * 0.22) * np.float32(radius * 0.028)
    nucleus = np.maximum(nucleus, body + np.float32(0.04 * radius))
    return Cell(body, nucleus, _stain(rng, grid, kind, (body, nucleus), radius))


def _stain(
    rng: np.random.Generator,
    grid: Grid,
    kind: Kind,
    shapes: tuple[Float32Array, Float32Array],
    radius: float,
) -> list[tuple[Float32Array, Dye]]:
    """The layers of dye of a cell, given its body and nucleus."""
    body, nucleus = shapes
    inside, core = coverage(body, 1.4), coverage(nucleus, 1.6)
    texture = grid.noise(rng, radius * 0.07) * np.float32(0.09)
    texture += grid.noise(rng, radius * 0.4) * np.float32(0.10)
    rim = np.exp(-np.square(body * np.float32(12 / radius) + 1)) * np.float32(
        rng.uniform(0.0, 0.45)
    )
    plasma = inside * (1 - core) * (1 + texture + rim) * np.float32(rng.uniform(*kind.cytoplasm))
    clumps = grid.noise(rng, radius * 0.16) * np.float32(0.13)
    clumps += grid.noise(rng, radius * 0.06) * np.float32(0.07)
    edge = np.exp(-np.square(nucleus * np.float32(10 / radius))) * np.float32(0.12)
    chromatin = core * (1 + clumps + edge) * np.float32(rng.uniform(*kind.chromatin))
    layers = [(plasma, kind.tint), (chromatin, CHROMATIN)]
    if kind.granules:
        room = inside if kind.granules_cover_nucleus else inside * (1 - np.float32(0.85) * core)
        grains = _granules(rng, grid, kind.granules, max(radius * 0.028, 0.6))
        layers.append((grains * room * np.float32(rng.uniform(0.3, 1.1)), kind.granule_dye))
    return layers


def _granules(rng: np.random.Generator, grid: Grid, share: float, radius: float) -> Float32Array:
    """Small round specks all over the grid, of density about 0..1."""
    seeds = (rng.random((grid.size, grid.size), dtype=np.float32) < share / radius**2).astype(
        np.float32
    )
    peak = np.float32(2 * math.pi * radius**2)
    specks = gaussian_filter(seeds, radius, mode="nearest", truncate=3) * peak
    density: Float32Array = np.minimum(specks, np.float32(1.3))
    return density


def _lobes(
    rng: np.random.Generator, grid: Grid, places: list[Place], radius: float, bridge: float
) -> Float32Array:
    """Lobes of about `radius` at `places`, joined one after the other by bridges."""
    shape: Float32Array | None = None
    for index, place in enumerate(places):
        lobe = grid.ellipse(
            place,
            radius * rng.uniform(0.85, 1.15),
            stretch=rng.uniform(1.05, 1.45),
            turn=rng.uniform(0, math.pi),
        )
        shape = lobe if shape is None else smooth_union(shape, lobe, radius * 0.35)
        if index:
            link = grid.capsule(places[index - 1], place, bridge * rng.uniform(0.6, 1.4))
            shape = smooth_union(shape, link, radius * 0.3)
    assert shape is not None
    return shape


def _around(centre: Place, distance: float, angle: float) -> Place:
    return centre[0] + distance * math.sin(angle), centre[1] + distance * math.cos(angle)


def _segmented(rng: np.random.Generator, grid: Grid, centre: Place, radius: float) -> Float32Array:
    """Three to five lobes along an arc, with thin bridges."""
    num = int(rng.integers(3, 6))
    start, step = rng.uniform(0, 2 * math.pi), rng.uniform(0.95, 1.25)
    places = [
        _around(centre, radius * rng.uniform(0.36, 0.5), start + step * i + rng.normal(0, 0.1))
        for i in range(num)
    ]
    return _lobes(rng, grid, places, radius * (0.34 - 0.025 * num), radius * 0.06)


def _round(rng: np.random.Generator, grid: Grid, centre: Place, radius: float) -> Float32Array:
    """One large disk, at times with a notch."""
    share = rng.uniform(0.74, 0.9)
    turn = rng.uniform(0, 2 * math.pi)
    place = _around(centre, radius * (1 - share) * rng.uniform(0.2, 0.7), turn)
    disk = grid.ellipse(place, radius * share, stretch=rng.uniform(1, 1.15), turn=turn)
    if rng.random() < 0.3:
        notch = grid.ellipse(_around(place, radius * share * 1.05, turn + 2), radius * 0.2)
        disk = smooth_cut(disk, notch, radius * 0.15)
    return disk


def _kidney(rng: np.random.Generator, grid: Grid, centre: Place, radius: float) -> Float32Array:
    """A large bean: an ellipse with a deep bay."""
    turn = rng.uniform(0, 2 * math.pi)
    place = _around(centre, radius * rng.uniform(0, 0.18), turn + math.pi)
    bean = grid.ellipse(
        place, radius * rng.uniform(0.62, 0.74), stretch=rng.uniform(1.1, 1.4), turn=turn + 1.57
    )
    bay = grid.ellipse(
        _around(place, radius * rng.uniform(0.5, 0.72), turn), radius * rng.uniform(0.26, 0.38)
    )
    return smooth_cut(bean, bay, radius * 0.2)


def _bilobed(rng: np.random.Generator, grid: Grid, centre: Place, radius: float) -> Float32Array:
    """Two round lobes with a bridge, as a pair of spectacles."""
    turn, span = rng.uniform(0, 2 * math.pi), rng.uniform(1.0, 1.5)
    places = [
        _around(centre, radius * rng.uniform(0.4, 0.5), turn + side * span) for side in (-1, 1)
    ]
    return _lobes(rng, grid, places, radius * rng.uniform(0.3, 0.36), radius * 0.1)


def _irregular(rng: np.random.Generator, grid: Grid, centre: Place, radius: float) -> Float32Array:
    """Two or three broad lobes that run into one another."""
    start = rng.uniform(0, 2 * math.pi)
    places = [_around(centre, radius * 0.33, start + 2.1 * i) for i in range(rng.integers(2, 4))]
    return _lobes(rng, grid, places, radius * 0.38, radius * 0.22)


# In order of `Dataset.labels`, as in segmentation_wbc.
KINDS = (
    Kind("neutrophil", (30, 41), 0.03, PINK, (0.4, 1.5), (0.6, 1.15), _segmented, 0.05, PINK),
    Kind("lymphocyte", (22, 31), 0.035, BLUE, (0.35, 1.1), (0.55, 1.1), _round),
    Kind("monocyte", (34, 44), 0.06, GREY_BLUE, (0.35, 1.05), (0.4, 0.85), _kidney, 0.02, PINK),
    Kind("eosinophil", (30, 39), 0.035, PINK, (0.5, 1.4), (0.5, 0.95), _bilobed, 0.16, ORANGE),
    Kind(
        "basophil",
        (27, 36),
        0.05,
        PINK,
        (0.6, 1.6),
        (0.45, 0.75),
        _irregular,
        granules=0.05,
        granule_dye=DARK_PURPLE,
        granules_cover_nucleus=True,
    ),
)
CELL_TYPES = tuple(kind.name for kind in KINDS)
