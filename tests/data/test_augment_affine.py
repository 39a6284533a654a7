"""Flips, rotations and colour changes against what they must be on single images."""

from dataclasses import replace

import pytest
import torch
from torchvision.transforms.v2 import functional as vision

from hemaml.data.augment_affine import Augmentation, augment, draw

ALL = Augmentation(flip=True, rotation=10, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05)


@pytest.fixture
def batch():
    return torch.randint(256, (5, 24, 24, 3), dtype=torch.uint8, generator=seeded())


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def still(num):
    return draw(num, Augmentation())


def smooth(batch):
    """Values that stay away from the ends of the range, where colour changes are cut off."""
    return 90 + batch.float() / 4


def test_without_augmentation_nothing_changes(batch):
    assert not Augmentation().changes_anything
    torch.testing.assert_close(augment(batch, still(5)), batch.float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("angle", [0.0, 90.0, 180.0, -90.0])
def test_a_rotation_by_quarter_turns_is_rot90(batch, angle):
    draws = replace(still(5), angles=torch.tensor([angle, 0, 0, 0, angle]))
    found = augment(batch, draws)
    turned = torch.rot90(batch, int(angle // 90), dims=(1, 2)).float()
    torch.testing.assert_close(found[[0, 4]], turned[[0, 4]], atol=0.05, rtol=0)
    torch.testing.assert_close(found[1:4], batch[1:4].float(), atol=0.05, rtol=0)


@pytest.mark.parametrize("angle", [0.0, 7.0])
def test_each_image_is_mirrored_by_itself_and_before_it_is_rotated(batch, angle):
    flips = torch.tensor([True, False, True, False, False])
    angles = torch.full((5,), angle)
    found = augment(batch, replace(still(5), flips=flips, angles=angles))
    mirrored = torch.where(flips[:, None, None, None], batch.flip(2), batch)
    expected = augment(mirrored, replace(still(5), angles=angles))
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0)


def test_inside_the_image_a_rotation_is_that_of_torchvision(batch):
    angles = torch.tensor([-10.0, -3, 0, 3, 10])
    found = augment(batch, replace(still(5), angles=angles))
    for image, angle, result in zip(batch, angles.tolist(), found, strict=True):
        bilinear = vision.InterpolationMode.BILINEAR
        expected = vision.rotate(image.permute(2, 0, 1).float(), angle, bilinear).permute(1, 2, 0)
        torch.testing.assert_close(result[5:-5, 5:-5], expected[5:-5, 5:-5], atol=0.05, rtol=0)


def test_rotations_leave_no_black_corners():
    white = torch.full((1, 16, 16, 3), 200, dtype=torch.uint8)
    found = augment(white, replace(still(1), angles=torch.tensor([45.0])))
    torch.testing.assert_close(found, white.float(), atol=0.01, rtol=0)


@pytest.mark.parametrize("change", ["brightness", "contrast", "saturation"])
def test_colours_change_as_in_torchvision(batch, change):
    factors = torch.tensor([0.8, 0.9, 1.0, 1.1, 1.2])
    found = augment(smooth(batch), replace(still(5), **{change: factors}))
    adjust = getattr(vision, f"adjust_{change}")
    for image, factor, result in zip(smooth(batch), factors.tolist(), found, strict=True):
        expected = 255 * adjust(image.permute(2, 0, 1) / 255, factor).permute(1, 2, 0)
        torch.testing.assert_close(result, expected, atol=0.1, rtol=0)


def test_hue_keeps_the_grey_level_and_comes_round(batch):
    colours = smooth(batch)
    grey = torch.tensor([0.299, 0.587, 0.114])
    half = augment(colours, replace(still(5), hue=torch.full((5,), 0.5)))
    torch.testing.assert_close(half @ grey, colours @ grey, atol=0.1, rtol=0)
    assert (half - colours).abs().max() > 10
    whole = augment(colours, replace(still(5), hue=torch.ones(5)))
    torch.testing.assert_close(whole, colours, atol=0.1, rtol=0)


def test_every_draw_differs_between_the_images_of_a_batch():
    draws = draw(64, ALL, seeded())
    for name in ("angles", "brightness", "contrast", "saturation", "hue"):
        assert len(getattr(draws, name).unique()) == 64, name
    assert 16 < draws.flips.sum() < 48
    one = torch.rand(1, 16, 16, 3, generator=seeded()) * 255
    found = augment(one.expand(64, -1, -1, -1), draws)
    assert min((found[i] - found[j]).abs().max() for i in range(8) for j in range(i)) > 1


def test_draws_stay_in_their_ranges_and_fill_them():
    draws = draw(4000, ALL, seeded())
    middles = {"angles": (0, 10), "brightness": (1, 0.2), "contrast": (1, 0.2), "hue": (0, 0.05)}
    for name, (middle, width) in middles.items():
        distance = (getattr(draws, name) - middle).abs()
        assert 0.99 * width < distance.max() <= width + 1e-6, name


def test_equal_seeds_draw_equally_and_results_are_grey_levels(batch):
    first = augment(batch, draw(5, ALL, seeded(3)))
    assert torch.equal(first, augment(batch, draw(5, ALL, seeded(3))))
    assert not torch.equal(first, augment(batch, draw(5, ALL, seeded(4))))
    assert first.dtype == torch.float32
    assert first.shape == batch.shape
    bright = augment(batch, replace(still(5), brightness=torch.full((5,), 3.0)))
    assert (bright.min(), bright.max()) == (0, 255)
