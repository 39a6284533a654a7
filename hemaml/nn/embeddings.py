"""Activations of frozen networks, computed once an image and kept in tables.

A row depends on its own image alone, to the last bit on the CPU: batches are evaluated without
training-time behaviour, and never hold a single image, for which convolutions sum in another order.

Shape suffixes: N images, S side, h w C rows, columns and channels of an activation.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hemaml.core.cache import Cache
from hemaml.core.rows import Rows
from hemaml.nn.allocation import keep_freed_memory
from hemaml.nn.backbones import Loaded

VERSION = 1
"""To be raised when rows change, so that cached ones are not used any more."""
BATCH = 32


def embeddings(
    loaded: Loaded, pixels: Rows, digests: Sequence[str], cache: Cache, *, size: int, device: str
) -> Rows:
    """Features of images: N x dim, float32.

    Args:
        loaded: The backbone; goes to the device and into evaluation mode.
        pixels: N x S x S x 3, uint8.
        digests: Content digests of the N images before they were resized.
        cache: Keeps the rows.
        size: S.
        device: Where they are computed; not part of the key.
    """
    top = len(loaded.network)
    return activations(loaded, pixels, digests, cache, size=size, device=device, stage=top)


def activations(
    loaded: Loaded,
    pixels: Rows,
    digests: Sequence[str],
    cache: Cache,
    *,
    size: int,
    device: str,
    stage: int,
) -> Rows:
    """What the lowest `stage` stages make of images: N x h x w x C, or N x dim after all of them.

    Half precision would halve the table, but a fit on it would differ from one without a table.

    Args:
        loaded: The backbone, whose weights must be those that its digest names.
        pixels: N x S x S x 3, uint8.
        digests: Content digests of the N images before they were resized.
        cache: Keeps the rows.
        size: S.
        device: Where they are computed; not part of the key.
        stage: How many stages, from the image upwards.
    """
    assert pixels.row_shape == (size, size, 3), pixels.row_shape
    assert len(pixels) == len(digests)
    keep_freed_memory()
    network = loaded.network.to(device).eval()

    @torch.inference_mode()
    def compute(positions: Sequence[int]) -> NDArray[Any]:
        batch = torch.from_numpy(pixels[_at_least_two(positions)]).to(device)
        found = network.up_to(loaded.normalise(batch), stage)[: len(positions)]
        return channels_last_rows(found.float())

    key: dict[str, object] = {
        "pixels": pixels.origin,
        "backbone": loaded.name,
        "weights": loaded.digest,
        "size": size,
        "stage": stage,
        "version": VERSION,
    }
    operation = "embeddings" if stage == len(network) else "activations"
    return cache.rows(operation, key, digests, compute, batch=BATCH)


def channels_last_rows(found: torch.Tensor) -> NDArray[Any]:
    """N x C x h x w as an array of N x h x w x C, as it lies in memory; N x dim as it is."""
    return (found.permute(0, 2, 3, 1) if found.ndim == 4 else found).contiguous().cpu().numpy()


def from_rows(rows: NDArray[Any], device: str) -> torch.Tensor:
    """What `channels_last_rows` made, as the network had it."""
    found = torch.from_numpy(np.ascontiguousarray(rows)).to(device)
    return found.permute(0, 3, 1, 2) if found.ndim == 4 else found


def _at_least_two(positions: Sequence[int]) -> Sequence[int]:
    return positions if len(positions) > 1 else [positions[0], positions[0]]
