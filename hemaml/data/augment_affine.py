"""Flips, affine moves and colour changes inside a batch: each image gets draws of its own.

Flip, rotation, shear, scale and shift are one resampling of the batch. Brightness, contrast,
saturation and hue are each linear in the colours of a pixel, so they are one 3 x 3 matrix and one
offset an image; so are changes of stains, in optical densities.

Shape suffixes: N batch, S side, C channels: the three colours, and what is moved with them.
"""

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

NUM_COLOURS = 3
Fill = Literal["reflection", "nearest"]
GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the grey level, ITU-R BT.601."""
DENSITIES = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
"""Optical densities of red, green and blue of haematoxylin, eosin and a residual stain.

Source: Ruifrok and Johnston, Quantification of histochemical staining by color deconvolution, 2001.
"""
LARGEST_DENSITY = math.log(1e6)
"""That is 1 in the space of scikit-image's `rgb2hed`."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far images are changed; 0, False and ranges of 1 to 1 leave them.

    Attributes:
        flip: Whether half of the images are mirrored left to right.
        rotation: Largest angle in degrees, to either side.
        shift: Largest move as a share of the side, to either side, in x and in y.
        shear: Largest angle in degrees by which vertical lines lean, to either side.
        scale: Range of the zoom; above 1 what is seen grows.
        brightness: Range of the factor of all colours.
        contrast: Distances to the image's mean grey level are multiplied by 1 - c to 1 + c.
        saturation: Distances to the pixel's grey level are multiplied by 1 - s to 1 + s.
        hue: Largest turn of the colours, to either side; 0.5 is half of the circle.
        stain: Each of haematoxylin, eosin and the rest, as scikit-image's `rgb2hed` has them, is
            multiplied by 1 - s to 1 + s, and -s to s is added. Source: Tellez et al., Whole-slide
            mitosis detection in H&E breast histology, 2018, section III.B, who take 0.05.
        fill: What comes in from outside: the image mirrored at its border, or its edge repeated.
    """

    flip: bool = False
    rotation: float = 0
    shift: float = 0
    shear: float = 0
    scale: tuple[float, float] = (1, 1)
    brightness: tuple[float, float] = (1, 1)
    contrast: float = 0
    saturation: float = 0
    hue: float = 0
    stain: float = 0
    fill: Fill = "reflection"

    @property
    def changes_anything(self) -> bool:
        """Whether an image can come out other than it went in."""
        return replace(self, fill="reflection") != Augmentation()


@dataclass(frozen=True, slots=True)
class Draws:
    """What happens to each image of a batch: N values each, on the CPU.

    Attributes:
        flips: Bool, whether it is mirrored before all else.
        angles: Degrees counter-clockwise.
        shifts: N x 2, shares of the side to the right and down.
        shears: Degrees by which what is vertical leans to the left at its lower end.
        scales: Zoom.
        brightness: Factor; `contrast` and `saturation` too.
        contrast: See `Augmentation`.
        saturation: See `Augmentation`.
        hue: Share of a full turn.
        stain_factors: N x 3, of haematoxylin, eosin and the rest.
        stain_shifts: N x 3, added to these.
        fill: Of all images.
    """

    flips: Tensor
    angles: Tensor
    shifts: Tensor
    shears: Tensor
    scales: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    stain_factors: Tensor
    stain_shifts: Tensor
    fill: Fill = "reflection"

    @property
    def only_flips(self) -> bool:
        """Whether no image needs to be resampled."""
        moved = self.angles.any() or self.shifts.any() or self.shears.any()
        return not (moved or (self.scales != 1).any())


def draw(num: int, how: Augmentation, generator: torch.Generator | None = None) -> Draws:
    """Independent draws for each of `num` images, uniform over their ranges.

    Equal numbers are taken from the generator whatever is switched on.
    """
    uniform = torch.rand(16, num, generator=generator)
    centred = 2 * uniform - 1
    return Draws(
        flips=(uniform[0] < 0.5) & how.flip,
        angles=centred[1] * how.rotation,
        shifts=centred[2:4].T * how.shift,
        shears=centred[4] * how.shear,
        scales=_between(uniform[5], how.scale),
        brightness=_between(uniform[6], how.brightness),
        contrast=1 + centred[7] * how.contrast,
        saturation=1 + centred[8] * how.saturation,
        hue=centred[9] * how.hue,
        stain_factors=1 + centred[10:13].T * how.stain,
        stain_shifts=centred[13:16].T * how.stain,
        fill=how.fill,
    )


def _between(uniform: Tensor, limits: tuple[float, float]) -> Tensor:
    low, high = limits
    return low + (high - low) * uniform


def augment(batch_NSSC: Tensor, draws: Draws) -> Tensor:
    """Each image under its own draws; channels after the colours, such as masks, are only moved.

    Moves are bilinear about the centre: sheared, scaled, rotated, then shifted. What comes in from
    outside is made of the image itself, so that no black corners tell a moved image from others.

    Args:
        batch_NSSC: N x S x S x C grey levels 0 to 255, of any type and device; C is at least 3.
        draws: Of N images.

    Returns:
        N x S x S x C grey levels 0 to 255, float32, a new tensor; in memory one colour of an image
        lies after the other, which is several times faster than pixel after pixel.
    """
    assert len(draws.flips) == len(batch_NSSC), f"{len(draws.flips)} draws for {len(batch_NSSC)}"
    moved_NCSS = _moved(batch_NSSC.float().permute(0, 3, 1, 2), draws)
    stained_NCSS = _stained(moved_NCSS[:, :NUM_COLOURS], draws)
    changed = _recoloured(stained_NCSS, *_colour_changes(stained_NCSS, draws)).clamp_(0, 255)
    if moved_NCSS.shape[1] > NUM_COLOURS:
        changed = torch.cat([changed, moved_NCSS[:, NUM_COLOURS:]], dim=1)
    return changed.permute(0, 2, 3, 1)


def _moved(batch_NCSS: Tensor, draws: Draws) -> Tensor:
    """Mirrored, then moved about the centre."""
    if draws.only_flips:
        flips = draws.flips.to(batch_NCSS.device)[:, None, None, None]
        return torch.where(flips, batch_NCSS.flip(3), batch_NCSS) if flips.any() else batch_NCSS
    return functional.grid_sample(
        batch_NCSS,
        _grid(_sources(draws).to(batch_NCSS.device), batch_NCSS.shape[-1]),
        mode="bilinear",
        padding_mode="border" if draws.fill == "nearest" else "reflection",
        align_corners=False,
    )


def _grid(theta_N23: Tensor, side: int) -> Tensor:
    """N x S x S x 2 places of the source, as `affine_grid` has them, in a fiftieth of its time."""
    places_S = (2 * torch.arange(side, device=theta_N23.device) + 1) / side - 1
    across, down, offset = theta_N23[..., None, None].unbind(2)
    grid_N2SS = across * places_S + (down * places_S[:, None] + offset)
    return grid_N2SS.permute(0, 2, 3, 1)


def _sources(draws: Draws) -> Tensor:
    """N x 2 x 3: places of the result to places of the source, both -1 to 1 across the image."""
    angles, lean = torch.deg2rad(draws.angles), torch.deg2rad(draws.shears).tan()
    cos, sin = angles.cos() / draws.scales, angles.sin() / draws.scales
    # Rotated and scaled back, then sheared back, then mirrored back.
    turned = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    turned[:, 0] += lean[:, None] * turned[:, 1]
    turned[:, 0] *= torch.where(draws.flips, -1.0, 1.0)[:, None]
    return torch.cat([turned, -turned @ (2 * draws.shifts[:, :, None])], 2)


def _stained(batch_NCSS: Tensor, draws: Draws) -> Tensor:
    """Amounts of stains changed; by the law of Lambert and Beer, these are linear in logarithms."""
    if (draws.stain_factors == 1).all() and not draws.stain_shifts.any():
        return batch_NCSS
    densities = torch.tensor(DENSITIES)
    changes = torch.linalg.inv(densities) @ (draws.stain_factors[:, :, None] * densities)
    added = -LARGEST_DENSITY * draws.stain_shifts @ densities
    # The darkest level above black: black itself has no density.
    logs = batch_NCSS.clamp(min=1).div_(255).log_()
    device = batch_NCSS.device
    return _recoloured(logs, changes.transpose(1, 2).to(device), added.to(device)).exp_().mul_(255)


def _recoloured(batch_NCSS: Tensor, matrices_NCC: Tensor, offsets_NC: Tensor) -> Tensor:
    """A matrix of the image times the colours of each pixel, plus an offset; a new tensor."""
    colours_NCP = batch_NCSS.flatten(2)
    changed = torch.baddbmm(offsets_NC[:, :, None], matrices_NCC, colours_NCP)
    return changed.view(batch_NCSS.shape)


def _colour_changes(batch_NCSS: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Matrices N x 3 x 3 and offsets N x 3: brightness, then contrast, saturation and hue."""
    device = batch_NCSS.device
    grey = torch.tensor(GREY)
    means = (batch_NCSS.mean(dim=(2, 3)) @ grey.to(device)) * draws.brightness.to(device)
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
