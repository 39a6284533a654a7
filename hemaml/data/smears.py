"""Reader of generated smears: synthetic white blood cells with exact masks.

Nothing here is a photograph. The images resemble Wright-stained smears closely enough that every
model, split and figure can be tried where no real data is at hand, and their masks are exact by
construction. Figures reached on them say nothing of performance on real blood.

Light is absorbed layer by layer (Beer-Lambert): each stained layer adds an optical density
`coverage x strength x dye`, and a pixel is `light x exp(-density)`. Hence red cells that overlap
darken, as they do on a slide.

Shape suffixes: H, W image sides; 3 colour channels R, G, B; L layers.
"""

import math
from dataclasses import dataclass

import numpy as np
from pydantic import Field
from scipy.ndimage import gaussian_filter

from hemaml.core.dataset import Dataset
from hemaml.core.seeding import derive_seed
from hemaml.core.types import Float32Array, Frozen, UInt8Array
from hemaml.data.cells import CHROMATIN, KINDS, Cell, Dye, draw_cell
from hemaml.data.pairs import item_digest
from hemaml.data.problems import Problem
from hemaml.data.reading import Reader
from hemaml.data.shapes import Grid, Place, coverage

CLASSES = ("background", "cytoplasm", "nucleus")

# Of twenty: 7 neutrophils, 5 lymphocytes, 3 monocytes, 3 eosinophils, 2 basophils, about as unequal
# as real sets. The order is fixed, so that small sets have all five types, too.
CYCLE = (0, 1, 2, 3, 4, 0, 1, 0, 2, 0, 1, 3, 0, 1, 0, 4, 2, 0, 3, 1)

RED: Dye = (0.18, 0.44, 0.40)
WARM_LIGHT, COOL_LIGHT = (1.0, 0.96, 0.66), (0.98, 0.91, 0.86)


class Smears(Frozen):
    """The `data:` section of this reader.

    A larger `count` extends the set: image i depends on `seed`, `size`, `noise`, `per_slide` and i.
    """

    count: int = Field(default=60, ge=1, description="Number of images.")
    size: int = Field(default=120, ge=32, le=2048, description="Side in pixels; cells scale along.")
    seed: int = Field(default=0, description="Another seed is another set.")
    noise: float = Field(default=1.0, ge=0, le=10, description="Sensor noise; 1 is a fair camera.")
    per_slide: int = Field(
        default=0, ge=0, description="Images that share stain, light and group; 0: no groups."
    )


@dataclass(frozen=True, slots=True)
class Slide:
    """What the images of one slide share.

    Attributes:
        light: Colour of the empty slide, 0..1 in R, G, B.
        stain: Strength of all dyes.
        warmth: Shift of the dyes between blue (negative) and red.
        zoom: Size of the cells.
        crowd: Mean number of red cells in the image.
        red: Strength of red cells, from ghosts to full.
        blur: Deviation of the point spread in an image of 120 pixels, in pixels.
    """

    light: tuple[float, float, float]
    stain: float
    warmth: float
    zoom: float
    crowd: float
    red: float
    blur: float


def read(spec: Smears) -> Dataset:
    """The generated set; labels are indices into `cells.CELL_TYPES`, groups are slides."""
    drawn = [draw_smear(spec, index) for index in range(spec.count)]
    labels = tuple(CYCLE[index % len(CYCLE)] for index in range(spec.count))
    slides = (f"slide-{index // spec.per_slide:04d}" for index in range(spec.count))
    return Dataset(
        name="smears",
        classes=CLASSES,
        ids=tuple(f"{index:05d}" for index in range(spec.count)),
        images=tuple(image for image, _ in drawn),
        masks=tuple(mask for _, mask in drawn),
        labels=labels,
        groups=tuple(slides) if spec.per_slide else (),
        digests=tuple(
            item_digest(image, mask, label)
            for (image, mask), label in zip(drawn, labels, strict=True)
        ),
        source=f"generated (synthetic) smears, {spec.model_dump_json()}",
    )


def verify(spec: Smears) -> list[Problem]:
    """Always empty: there are no files."""
    return []


def draw_smear(spec: Smears, index: int) -> tuple[UInt8Array, UInt8Array]:
    """Image `index` of the set: H x W x 3 RGB, and its H x W mask of class indices."""
    slide_index = index // spec.per_slide if spec.per_slide else index
    slide = _draw_slide(np.random.default_rng(derive_seed("slide", spec.seed, slide_index)))
    rng = np.random.default_rng(derive_seed("smear", spec.seed, index))
    grid, scale = Grid(spec.size), spec.size / 120
    kind = KINDS[CYCLE[index % len(CYCLE)]]
    radius = rng.uniform(*kind.radius) * scale * slide.zoom
    middle = (spec.size - 1) / 2
    centre = middle + rng.normal(0, 2.5) * scale, middle + rng.normal(0, 2.5) * scale
    cell = draw_cell(rng, grid, kind, centre, radius)

    away = 1 - coverage(cell.body, 1.4)
    red = _red_cells(rng, grid, slide, centre, radius) * away
    specks = _platelets(rng, grid, scale) * away
    layers = [(red, RED), (specks, CHROMATIN), *cell.layers]
    return _expose(rng, grid, slide, layers, spec), _mask(cell)


def _mask(cell: Cell) -> UInt8Array:
    """0 background, 1 cytoplasm, 2 nucleus, by the centres of the pixels."""
    return (cell.body < 0).astype(np.uint8) + (cell.nucleus < 0).astype(np.uint8)


def _draw_slide(rng: np.random.Generator) -> Slide:
    warm = rng.beta(0.7, 0.7)
    light = [w * warm + c * (1 - warm) for w, c in zip(WARM_LIGHT, COOL_LIGHT, strict=True)]
    tinted = np.clip(np.array(light) * rng.normal(1, 0.02, 3), 0, 1) * rng.uniform(0.94, 1)
    return Slide(
        light=(float(tinted[0]), float(tinted[1]), float(tinted[2])),
        stain=rng.uniform(0.78, 1.12),
        warmth=rng.uniform(-1, 1),
        zoom=rng.uniform(0.86, 1.08),
        crowd=rng.uniform(2, 14),
        # Rapid stains, which leave a yellow ground, mostly lyse red cells: ghosts remain.
        red=rng.uniform(0.08, 0.3) if rng.random() < 0.1 + 0.7 * warm else rng.uniform(0.5, 1.1),
        blur=rng.uniform(0.45, 1.05),
    )


def _red_cells(
    rng: np.random.Generator, grid: Grid, slide: Slide, centre: Place, radius: float
) -> Float32Array:
    """Density of red cells, with central pallor; some run over the border, none under the cell."""
    density = np.zeros((grid.size, grid.size), dtype=np.float32)
    own = grid.size * 0.15 * slide.zoom
    pallor, depth = rng.uniform(0.4, 0.75), rng.uniform(0.25, 0.95)
    for _ in range(int(rng.poisson(slide.crowd))):
        place = tuple(rng.uniform(-0.1, 1.1, 2) * grid.size)
        size = own * rng.uniform(0.85, 1.1)
        gap = math.dist(place, centre) - radius - size
        if gap < -0.35 * size:
            continue
        shape = grid.ellipse(
            place, size, stretch=rng.uniform(1, 1.25), turn=rng.uniform(0, math.pi)
        )
        dip = np.exp(-np.square((shape + np.float32(size)) * np.float32(1 / (pallor * size))))
        density += coverage(shape, 1.5) * (1 - np.float32(depth) * dip)
    return density * np.float32(slide.red)


def _platelets(rng: np.random.Generator, grid: Grid, scale: float) -> Float32Array:
    """Density of platelets and dirt: small specks."""
    density = np.zeros((grid.size, grid.size), dtype=np.float32)
    for _ in range(int(rng.poisson(1.2))):
        place = tuple(rng.uniform(0, grid.size, 2))
        shape = grid.ellipse(place, rng.uniform(1.2, 4) * scale, stretch=rng.uniform(1, 1.6))
        density += coverage(shape, 2) * np.float32(rng.uniform(0.15, 0.6))
    return density


def _expose(
    rng: np.random.Generator,
    grid: Grid,
    slide: Slide,
    layers: list[tuple[Float32Array, Dye]],
    spec: Smears,
) -> UInt8Array:
    """Light through all layers, lens and sensor to H x W x 3, uint8."""
    fields_LHW = np.stack([field for field, _ in layers])
    dyes_L3 = np.array([dye for _, dye in layers], dtype=np.float32) * np.float32(slide.stain)
    dyes_L3 *= np.array([1 - 0.12 * slide.warmth, 1, 1 + 0.2 * slide.warmth], dtype=np.float32)
    density_HW3 = np.tensordot(fields_LHW, dyes_L3, axes=(0, 0))
    blur = slide.blur * grid.size / 120
    density_HW3 = gaussian_filter(density_HW3, (blur, blur, 0), mode="nearest", truncate=3)

    axis = np.linspace(-1, 1, grid.size, dtype=np.float32)
    tilt_y, tilt_x = rng.normal(0, 0.025, 2).astype(np.float32)
    light_HW = 1 + tilt_y * axis[:, None] + tilt_x * axis[None, :]
    light_HW -= np.float32(0.02) * (np.square(axis)[:, None] + np.square(axis)[None, :])
    light_HW += grid.noise(rng, grid.size / 4) * np.float32(0.008)
    light_HW3 = light_HW[:, :, None] * np.array(slide.light, dtype=np.float32)
    image_HW3 = light_HW3 * np.exp(-density_HW3) * np.float32(252)

    grain_HW3 = rng.standard_normal(image_HW3.shape, dtype=np.float32)
    grain_HW3 = gaussian_filter(grain_HW3, (0.6, 0.6, 0), mode="nearest", truncate=2)
    image_HW3 += grain_HW3 * np.float32(4.5 * spec.noise)
    image: UInt8Array = np.clip(np.rint(image_HW3), 0, 255).astype(np.uint8)
    return image


reader = Reader(Smears, read, verify)
