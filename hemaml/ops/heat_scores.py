"""Numbers for heat maps: whether they show what a classifier uses, and whether that is nuclei.

A heat map has one value a pixel, 0 or more; what is larger matters more. One that is the same
everywhere says nothing, and each number here then has its value by chance.

Shape suffixes: V views of an image, H and W sides, K steps.

Sources: V. Petsiuk, A. Das, K. Saenko: RISE: randomized input sampling for explanation of black-box
models. BMVC 2018, section 4 (deletion and insertion). J. Zhang et al.: Top-down neural attention by
excitation backprop. IJCV 2018 (pointing game). J. Adebayo et al.: Sanity checks for saliency maps.
NeurIPS 2018, section 3 (rank correlation). A. Ruifrok, D. Johnston: Quantification of histochemical
staining by color deconvolution. 2001 (haematoxylin).
"""

import numpy as np

from hemaml.core.types import BoolArray, Float32Array, UInt8Array


def hottest(heat_VHW: Float32Array, num_steps: int, seed: int = 0) -> BoolArray:
    """The hottest 0, 1/K, ..., K/K of all pixels of an image's views.

    Pixels of equal heat come in an order drawn from `seed`: large parts of a map are 0, and their
    place in the array must not decide.

    Args:
        heat_VHW: Heat of the views' pixels.
        num_steps: K.
        seed: Fixes the order of equals.

    Returns:
        (K + 1) x V x H x W.
    """
    drawn = np.random.default_rng(seed).permutation(heat_VHW.size)
    order = np.lexsort((drawn, -heat_VHW.ravel()))
    place = np.empty(heat_VHW.size, dtype=np.int64)
    place[order] = np.arange(heat_VHW.size)
    ends = np.round(np.linspace(0, heat_VHW.size, num_steps + 1)).astype(np.int64)
    among: BoolArray = place.reshape(heat_VHW.shape) < ends[:, None, None, None]
    return among


def area_under(values: Float32Array) -> float:
    """Area below values at equal distances from 0 to 1, by the trapezoidal rule."""
    return float((values[1:] + values[:-1]).mean() / 2)


def blurred(pixels_HWC: UInt8Array) -> UInt8Array:
    """An image without its details: a Gaussian of the width that RISE has for its 224 pixels."""
    from scipy.ndimage import gaussian_filter

    sigma = 5 / 224 * max(pixels_HWC.shape[:2])
    found: UInt8Array = gaussian_filter(pixels_HWC, sigma=(sigma, sigma, 0))
    return found


def nuclei_mask(image_HWC: UInt8Array) -> BoolArray:
    """Where tissue stained by haematoxylin and eosin has nuclei: H x W.

    Otsu's threshold on the haematoxylin of `skimage.color.rgb2hed`. An image of one colour has
    none. Black pixels are no tissue: cells that were cut out have them around.
    """
    from skimage.color import rgb2hed
    from skimage.filters import threshold_otsu

    tissue: BoolArray = image_HWC.max(axis=2) > 0
    haematoxylin = rgb2hed(image_HWC)[:, :, 0].astype(np.float32)
    if not tissue.any() or np.ptp(haematoxylin[tissue]) < 1e-6:  # of no stain, rounding is left
        return np.zeros(image_HWC.shape[:2], dtype=bool)
    least = threshold_otsu(haematoxylin[tissue])  # type: ignore[no-untyped-call]
    mask: BoolArray = (haematoxylin > least) & tissue
    return mask


def pointing(heat_HW: Float32Array, mask_HW: BoolArray) -> float:
    """1 where the hottest pixel lies in the mask, else 0; of several hottest, their share in it."""
    return float(mask_HW[heat_HW == heat_HW.max()].mean())


def energy_inside(heat_HW: Float32Array, mask_HW: BoolArray) -> float:
    """Share of a map's heat that lies in the mask; of a map without heat, the mask's area."""
    total = float(heat_HW.sum(dtype=np.float64))
    if total == 0:
        return float(mask_HW.mean())
    return float(heat_HW[mask_HW].sum(dtype=np.float64)) / total


def rank_similarity(one_HW: Float32Array, other_HW: Float32Array) -> float:
    """Spearman's correlation of two maps, -1 to 1; 0 where one is the same everywhere."""
    from scipy.stats import rankdata

    ranks = [rankdata(heat.ravel()) for heat in (one_HW, other_HW)]
    if any(np.ptp(r) == 0 for r in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])
