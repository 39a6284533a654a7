"""Superpixels of an RGB image at a given scale, and how well they can carry a mask."""

from typing import Literal

import numpy as np

from hemaml.core.errors import ConfigError
from hemaml.core.types import Int32Array, UInt8Array
from hemaml.ops.lab import rgb_to_lab
from hemaml.ops.snic import Connectivity, Queue, snic

VERSION = 1
"""Goes up whenever `superpixels` gives other labels for the same arguments; part of cache keys."""

Method = Literal["snic", "slic"]
Rule = Literal["mean", "majority"]


def superpixels(
    image: UInt8Array,
    *,
    scale: float,
    compactness: float,
    method: Method = "snic",
    connectivity: Connectivity = 8,
    queue: Queue = "bucket",
) -> Int32Array:
    """Labels of the superpixels of one image.

    Args:
        image: H x W x 3, sRGB.
        scale: S, mean pixels per superpixel: K = round(H * W / S) superpixels are asked for.
            SNIC gives exactly max(K, 1) of them, SLIC about as many.
        compactness: Weight of position against colour, see `snic`.
        method: `snic`, or `slic` of scikit-image (10 iterations), which first stretches the
            values of each image to 0..1, so that compactness means something else there.
        connectivity: Of SNIC's superpixels; those of SLIC are always 4-connected.
        queue: See `snic`; SLIC has none.

    Returns:
        H x W labels, 0..K-1, all in use.

    Raises:
        ConfigError: An argument is out of bounds, or the image is no RGB image.

    Source: section 3 (S = HW / K) and section 4.2 of the SMGNN paper (S = 16).
    """
    if not scale >= 1:
        raise ConfigError(f"`scale >= 1` (pixels per superpixel) must hold, but got {scale}.")
    if method not in ("snic", "slic"):
        raise ConfigError(f"`method` must be 'snic' or 'slic', but got {method!r}.")
    if not compactness > 0:
        raise ConfigError(f"`compactness > 0` must hold, but got {compactness}.")
    count = max(1, round(image.shape[0] * image.shape[1] / scale))
    if method == "snic":
        return snic(
            rgb_to_lab(image),
            num_superpixels=count,
            compactness=compactness,
            connectivity=connectivity,
            queue=queue,
        )

    from skimage.segmentation import slic

    labels = slic(image, n_segments=count, compactness=compactness, start_label=0)
    _, contiguous = np.unique(labels, return_inverse=True)
    return contiguous.reshape(labels.shape).astype(np.int32)


def reconstruction_score(
    labels: Int32Array, mask: UInt8Array, *, num_classes: int, rule: Rule = "majority"
) -> float:
    """IoU of a mask with its best copy made of whole superpixels; the ceiling of a graph method.

    Each superpixel takes one class, which is painted back on its pixels. By `majority` that is
    its most frequent class (the lowest of equals). By `mean` it is floor(Y + 0.5), Y the mean of
    its class indices, as eq. 4.2 is printed; this treats the classes as ordered levels, so half
    background and half nucleus make cytoplasm.

    The IoU of each class with the mask is averaged over the classes found in the mask or in the
    copy. The sum printed in eq. 2.2 has c + 1 terms and the factor 1 / c for c classes; it is
    read as the mean over the c classes.

    Args:
        labels: H x W superpixels, 0..K-1.
        mask: H x W class indices, below `num_classes`.
        num_classes: c.
        rule: How a superpixel gets its class.

    Returns:
        0..1; 1 where every superpixel lies within one class.

    Raises:
        ConfigError: Unknown rule.

    Source: eq. 2.1, 2.2 and 4.2 of the SMGNN paper.
    """
    assert labels.shape == mask.shape
    count = int(labels.max()) + 1
    pairs = labels.ravel() * np.int64(num_classes) + mask.ravel()
    # votes_KC: pixels of each class in each superpixel.
    votes_KC = np.bincount(pairs, minlength=count * num_classes).reshape(count, num_classes)
    if rule == "majority":
        chosen_K = votes_KC.argmax(axis=1)
    elif rule == "mean":
        mean_K = votes_KC @ np.arange(num_classes) / votes_KC.sum(axis=1)
        chosen_K = np.floor(mean_K + 0.5).astype(np.int64)
    else:
        raise ConfigError(f"`rule` must be 'mean' or 'majority', but got {rule!r}.")

    painted_KC = chosen_K[:, None] == np.arange(num_classes)
    shared_C = (votes_KC * painted_KC).sum(axis=0)
    in_mask_C = votes_KC.sum(axis=0)
    in_copy_C = votes_KC.sum(axis=1) @ painted_KC
    union_C = in_mask_C + in_copy_C - shared_C
    present_C = union_C > 0
    return float((shared_C[present_C] / union_C[present_C]).mean())
