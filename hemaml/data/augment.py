"""Flips and quarter turns inside a batch: each image gets its own element of the dihedral group.

An element is a code of three bits: 4 transposes, then 2 flips the rows, then 1 flips the columns.
The eight codes are all symmetries of a square, so nothing is interpolated, and masks, images and
points can be moved alike and back.

Shape suffixes: N batch, C channels, P side of the square, K points.
"""

import torch
from torch import Tensor

TRANSPOSE, FLIP_ROWS, FLIP_COLUMNS = 4, 2, 1
NUM_CODES = 8


def random_dihedral(num: int, generator: torch.Generator | None = None) -> Tensor:
    """`num` codes, uniform over the group; int64 on the CPU, whatever device the batch is on."""
    return torch.randint(NUM_CODES, (num,), generator=generator)


def apply_dihedral(batch: Tensor, codes: Tensor) -> Tensor:
    """Each image under its own element.

    Content that is padded at the right and the bottom moves with its padding: apply the same codes
    to the `valid` mask of `pad_batch`.

    Args:
        batch: N x C x P x P, any type and device.
        codes: N codes.

    Returns:
        N x C x P x P, a new tensor.
    """
    num, _, rows, columns = batch.shape
    assert rows == columns, f"quarter turns need squares, but got {rows} x {columns}"
    assert codes.shape == (num,), f"one code an image, but got {tuple(codes.shape)} for {num}"
    moved = torch.empty_like(batch)
    for code in range(NUM_CODES):
        chosen = (codes == code).nonzero().squeeze(1).to(batch.device)
        if len(chosen):
            moved[chosen] = _move(batch[chosen], code)
    return moved


def inverse_dihedral(codes: Tensor) -> Tensor:
    """The codes that undo `codes`.

    A transposition swaps the two flips; all elements without it are their own inverse.
    """
    swapped = TRANSPOSE | ((codes & FLIP_ROWS) >> 1) | ((codes & FLIP_COLUMNS) << 1)
    return torch.where((codes & TRANSPOSE) > 0, swapped, codes)


def apply_dihedral_points(points: Tensor, code: int, size: int) -> Tensor:
    """Where an element takes points of an image.

    Args:
        points: K x 2, row and column of pixel centres; integer or real.
        code: One code.
        size: Side P of the padded square in pixels.

    Returns:
        K x 2: what the image had at `points`, the moved image has there.
    """
    row, column = points.unbind(dim=1)
    if code & TRANSPOSE:
        row, column = column, row
    if code & FLIP_ROWS:
        row = size - 1 - row
    if code & FLIP_COLUMNS:
        column = size - 1 - column
    return torch.stack([row, column], dim=1)


def _move(batch: Tensor, code: int) -> Tensor:
    if code & TRANSPOSE:
        batch = batch.transpose(2, 3)
    axes = [axis for axis, bit in ((2, FLIP_ROWS), (3, FLIP_COLUMNS)) if code & bit]
    return batch.flip(axes) if axes else batch
