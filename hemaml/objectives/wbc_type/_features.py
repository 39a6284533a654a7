"""A cell as a vector of numbers: shape, colour and texture of its nucleus and its cytoplasm.

    22  shape      of the nucleus and of the whole cell: diameter (of a circle of equal area, in
                   pixels), perimeter over that of this circle, eccentricity, solidity, extent,
                   ratio of the axes, spread of the distances to the edge, greatest of these;
                   of the nucleus in the cell: share of the area, distance of the centres, number
                   of pieces, and pieces, greatest and mean width of what is left of it after a
                   third of its greatest depth is worn off (lobes)
    57  colour     moments of both in RGB, HSV and Lab, and how far their means in Lab differ
    92  texture    co-occurrence of grey levels, and local binary patterns, of both

None changes much when the image is turned. Diameters are in pixels, since types differ in size, so
images must have one magnification. A region without pixels has zeros; an image without a cell
counts as cytoplasm as a whole.

Sources: the SMGNN paper cites nucleus shape features with an SVM (section 4.6) and names none of
them; regions as in scikit-image's `regionprops`; colour and texture as in `hemaml.ops.texture`.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from hemaml.core.cache import Cache
from hemaml.core.rows import Rows
from hemaml.core.types import Float32Array, Float64Array, UInt8Array
from hemaml.objectives.wbc_type._segmenters import (
    CYTOPLASM,
    NUCLEUS,
    Segmenter,
    cell_or_all,
    masks_of,
)
from hemaml.ops.lab import rgb_to_lab
from hemaml.ops.texture import (
    NUM_CO_OCCURRENCE,
    NUM_MOMENTS,
    NUM_PATTERNS,
    Part,
    co_occurrence,
    colour_moments,
    local_patterns,
    to_grey,
)

Kind = Literal["all", "shape", "colour_texture"]
VERSION = 2
"""To be raised when features change, so that cached ones are not used any more."""
NUM_REGION, NUM_NUCLEUS = 8, 6
NUM_SHAPE = 2 * NUM_REGION + NUM_NUCLEUS
NUM_ALL = NUM_SHAPE + 2 * (NUM_MOMENTS + NUM_CO_OCCURRENCE + NUM_PATTERNS) + 3
WORN = 1 / 3
"""Of the greatest depth of a nucleus: what is worn off before lobes are counted."""
LEAST_PIECE = 0.03
"""Of the nucleus: pieces that are smaller do not count."""
COLUMNS: dict[Kind, slice] = {
    "all": slice(None),
    "shape": slice(NUM_SHAPE),
    "colour_texture": slice(NUM_SHAPE, None),
}
"""Which of `described` each kind takes."""


def num_features(kind: Kind) -> int:
    """D."""
    return len(range(NUM_ALL)[COLUMNS[kind]])


def feature_rows(
    segmenter: Segmenter, images: Sequence[UInt8Array], digests: Sequence[str], cache: Cache
) -> Rows:
    """All features of all images, N x `NUM_ALL`, from the cache.

    Args:
        segmenter: Makes the masks.
        images: N images.
        digests: N digests of their content.
        cache: Keeps features and masks.
    """

    def compute(positions: Sequence[int]) -> Float32Array:
        chosen = [images[p] for p in positions]
        masks = masks_of(segmenter, chosen, [digests[p] for p in positions], cache)
        return np.stack([described(i, m) for i, m in zip(chosen, masks, strict=True)])

    key: dict[str, object] = {"segmenter": segmenter.digest, "version": VERSION}
    return cache.rows("cell_features", key, digests, compute)


def described(image: UInt8Array, mask: UInt8Array) -> Float32Array:
    """All features of an image of H x W x 3 with its mask of H x W; see the module."""
    image, mask = _trimmed(image, cell_or_all(mask))
    nucleus, cytoplasm = mask == NUCLEUS, mask == CYTOPLASM
    grey = to_grey(image)
    parts = nucleus, cytoplasm
    values = [
        *(_region(part) for part in (nucleus, nucleus | cytoplasm)),
        _nucleus(nucleus, nucleus | cytoplasm),
        *(colour_moments(image, part) for part in parts),
        _contrast(image, nucleus, cytoplasm),
        *(co_occurrence(grey, part) for part in parts),
        *(local_patterns(grey, part) for part in parts),
    ]
    return np.concatenate(values).astype(np.float32)


def _trimmed(image: UInt8Array, mask: UInt8Array) -> tuple[UInt8Array, UInt8Array]:
    """Both without most of the background; patterns look two pixels around."""
    rows, columns = np.nonzero(mask)
    spans = [slice(max(0, v.min() - 3), v.max() + 4) for v in (rows, columns)]
    return np.ascontiguousarray(image[spans[0], spans[1]]), mask[spans[0], spans[1]]


def _region(part: Part) -> Float64Array:
    from skimage.measure import regionprops

    if not part.any():
        return np.zeros(NUM_REGION)
    (found,) = regionprops(part.astype(np.uint8))  # type: ignore[no-untyped-call]
    diameter = found.equivalent_diameter_area
    depth = _depths(part)[part]
    minor = max(found.axis_minor_length, 1.0)
    return np.array(
        [
            diameter,
            found.perimeter / (np.pi * diameter),
            found.eccentricity,
            found.solidity if found.area > 2 else 1.0,  # fewer pixels span no hull
            found.extent,
            found.axis_major_length / minor,
            depth.std() / diameter,
            depth.max() / diameter,
        ]
    )


def _nucleus(nucleus: Part, cell: Part) -> Float64Array:
    """How the nucleus lies in the cell, and into what it falls."""
    if not nucleus.any():
        return np.zeros(NUM_NUCLEUS)
    centres = [np.argwhere(part).mean(axis=0) for part in (nucleus, cell)]
    diameter = np.sqrt(4 * cell.sum() / np.pi)
    depth = _depths(nucleus)
    core = depth > WORN * depth.max()
    width = np.sqrt(4 * nucleus.sum() / np.pi)
    return np.array(
        [
            nucleus.sum() / cell.sum(),
            np.linalg.norm(centres[0] - centres[1]) / diameter,
            _pieces(nucleus),
            _pieces(core),
            depth.max() / width,
            depth[core].mean() / width,
        ]
    )


def _pieces(part: Part) -> int:
    """Connected pieces that are not specks."""
    from scipy.ndimage import label

    labels, _ = label(part)
    sizes = np.bincount(labels.ravel())[1:]
    return int((sizes >= LEAST_PIECE * part.sum()).sum())


def _depths(part: Part) -> Float64Array:
    """Distance of each pixel to what lies outside; beyond the image is outside."""
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(np.pad(part, 1))[1:-1, 1:-1], np.float64)


def _contrast(image: UInt8Array, nucleus: Part, cytoplasm: Part) -> Float64Array:
    """3 values: mean Lab of the nucleus less that of the cytoplasm, as shares of 100."""
    if not (nucleus.any() and cytoplasm.any()):
        return np.zeros(3)
    lab = rgb_to_lab(image) / 100
    return np.asarray(lab[nucleus].mean(axis=0) - lab[cytoplasm].mean(axis=0), np.float64)
