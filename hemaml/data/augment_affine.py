"""Flips, rotations and colour jitter inside a batch: each image gets draws of its own.

Flip and rotation are one resampling of the batch. Brightness, contrast, saturation and hue are each
linear in the colours of a pixel, so they are one 3 x 3 matrix and one offset an image.

Shape suffixes: N batch, S side, C the three colours.
"""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the grey level, ITU-R BT.601."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far images are changed; 0 and False leave them.

    Attributes:
        flip: Whether half of the images are mirrored left to right.
        rotation: Largest angle in degrees, to either side.
        brightness: Colours are multiplied by 1 - b to 1 + b.
        contrast: Distances to the image's mean grey level are multiplied by 1 - c to 1 + c.
        saturation: Distances to the pixel's grey level are multiplied by 1 - s to 1 + s.
        hue: Largest turn of the colours, to either side; 0.5 is half of the circle.
    """

    flip: bool = False
    rotation: float = 0
    brightness: float = 0
    contrast: float = 0
    saturation: float = 0
    hue: float = 0

    @property
    def changes_anything(self) -> bool:
        """Whether an image can come out other than it went in."""
        return self != Augmentation()


@dataclass(frozen=True, slots=True)
class Draws:
    """What happens to each image of a batch: N values each, on the CPU.

    Attributes:
        flips: Bool, whether it is mirrored before it is rotated.
        angles: Degrees counter-clockwise.
        brightness: Factor; `contrast` and `saturation` too.
        contrast: See `Augmentation`.
        saturation: See `Augmentation`.
        hue: Share of a full turn.
    """

    flips: Tensor
    angles: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor


def draw(num: int, how: Augmentation, generator: torch.Generator | None = None) -> Draws:
    """Independent draws for each of `num` images, uniform over their ranges.

    Equal numbers are taken from the generator whatever is switched on.
    """
    coins, *values = torch.rand(6, num, generator=generator)
    centred = [2 * value - 1 for value in values]
    return Draws(
        flips=(coins < 0.5) & how.flip,
        angles=centred[0] * how.rotation,
        brightness=1 + centred[1] * how.brightness,
        contrast=1 + centred[2] * how.contrast,
        saturation=1 + centred[3] * how.saturation,
        hue=centred[4] * how.hue,
    )


def augment(batch_NSSC: Tensor, draws: Draws) -> Tensor:
    """Each image under its own draws.

    Rotations are bilinear; what they bring in from outside is the image mirrored at its border, so
    that no black corners tell a rotated image from others.

    Args:
        batch_NSSC: N x S x S x 3 grey levels 0 to 255, of any type and device.
        draws: Of N images.

    Returns:
        N x S x S x 3 grey levels 0 to 255, float32, a new tensor.
    """
    assert len(draws.flips) == len(batch_NSSC), f"{len(draws.flips)} draws for {len(batch_NSSC)}"
    moved = _moved(batch_NSSC.float(), draws)
    matrices_NCC, offsets_NC = _colour_changes(moved, draws)
    num, side = moved.shape[:2]
    changed = torch.baddbmm(
        offsets_NC[:, None, :], moved.reshape(num, -1, 3), matrices_NCC.transpose(1, 2)
    )
    return changed.clamp_(0, 255).view(num, side, -1, 3)


def _moved(batch_NSSC: Tensor, draws: Draws) -> Tensor:
    """Mirrored, then rotated about the centre."""
    if not draws.angles.any():
        flips = draws.flips.to(batch_NSSC.device)[:, None, None, None]
        return torch.where(flips, batch_NSSC.flip(2), batch_NSSC) if flips.any() else batch_NSSC
    angles = torch.deg2rad(draws.angles)
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    mirror = torch.where(draws.flips, -1.0, 1.0)
    # From places of the result to places of the source: rotated back, then mirrored back.
    rows = [torch.stack([mirror * cos, -mirror * sin, zero], 1), torch.stack([sin, cos, zero], 1)]
    theta_N23 = torch.stack(rows, 1).to(batch_NSSC.device)
    images = batch_NSSC.permute(0, 3, 1, 2)
    grid = functional.affine_grid(theta_N23, list(images.shape), align_corners=False)
    turned = functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return turned.permute(0, 2, 3, 1)


def _colour_changes(batch_NSSC: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Matrices N x 3 x 3 and offsets N x 3: brightness, then contrast, saturation and hue."""
    device = batch_NSSC.device
    grey = torch.tensor(GREY)
    means = (batch_NSSC.mean(dim=(1, 2)) @ grey.to(device)) * draws.brightness.to(device)
    offsets_N = (1 - draws.contrast.to(device)) * means  # of all colours alike, so of grey, too
    saturation = draws.saturation[:, None, None]
    to_grey = grey.expand(3, 3)
    matrices = saturation * torch.eye(3) + (1 - saturation) * to_grey
    matrices = _hue_turns(draws.hue) @ matrices * (draws.brightness * draws.contrast)[:, None, None]
    return matrices.to(device), offsets_N[:, None].expand(-1, 3)


def _hue_turns(turns: Tensor) -> Tensor:
    """N x 3 x 3: colours turned about the axis of greys at equal grey level."""
    to_yiq, from_yiq = _yiq()
    angles = turns * 2 * math.pi
    cos, sin = angles.cos(), angles.sin()
    turned = torch.zeros(len(turns), 3, 3)
    turned[:, 0, 0] = 1
    turned[:, 1, 1] = turned[:, 2, 2] = cos
    turned[:, 1, 2], turned[:, 2, 1] = -sin, sin
    return from_yiq @ turned @ to_yiq


@cache
def _yiq() -> tuple[Tensor, Tensor]:
    """Red, green, blue to luma and two chroma values (NTSC), and back."""
    to_yiq = torch.tensor([GREY, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])
    return to_yiq, torch.linalg.inv(to_yiq)
