"""Flips, moves and colour changes against what they must be on single images."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from skimage.color import hed2rgb, rgb2hed
from torchvision.transforms.v2 import functional as vision

from hemaml.data.augment_affine import Augmentation, augment, draw

ALL = Augmentation(
    flip=True,
    rotation=10,
    shift=0.1,
    shear=5,
    scale=(0.9, 1.3),
    brightness=(0.7, 1.1),
    contrast=0.2,
    saturation=0.2,
    hue=0.05,
    stain=0.05,
)


CHANGED_BY = {
    "flip": ("flips",),
    "rotation": ("angles",),
    "shift": ("shifts",),
    "shear": ("shears",),
    "scale": ("scales",),
    "brightness": ("brightness",),
    "contrast": ("contrast",),
    "saturation": ("saturation",),
    "hue": ("hue",),
    "stain": ("stain_factors", "stain_shifts"),
}


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
    assert not Augmentation(fill="nearest").changes_anything
    assert Augmentation(scale=(1, 1.1)).changes_anything
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


@pytest.mark.parametrize("fill", ["reflection", "nearest"])
def test_all_moves_together_are_those_of_torchvision(batch, fill):
    """Which turns clockwise, moves by pixels, and fills with zeros: images and moves fit inside."""
    images = torch.zeros_like(batch)
    images[:, 9:-9, 9:-9] = batch[:, 9:-9, 9:-9]
    moves = Augmentation(rotation=180, shift=0.1, shear=20, scale=(0.9, 1.3), fill=fill)
    draws = draw(5, moves, seeded())
    found = augment(images, draws)
    for index, image in enumerate(images):
        expected = vision.affine(
            image.permute(2, 0, 1).float(),
            angle=-draws.angles[index].item(),
            translate=(24 * draws.shifts[index]).tolist(),
            scale=draws.scales[index].item(),
            shear=[draws.shears[index].item(), 0],
            interpolation=vision.InterpolationMode.BILINEAR,
        )
        assert expected.max() > 100
        torch.testing.assert_close(found[index], expected.permute(1, 2, 0), atol=0.05, rtol=0)


def test_shifts_are_shares_of_the_side_to_the_right_and_down(batch):
    shifts = torch.tensor([[3, 0], [0, -4], [2, 5], [0, 0], [-1, 1]]) / 24
    found = augment(batch, replace(still(5), shifts=shifts))
    for (x, y), image, result in zip((24 * shifts).round().int(), batch, found, strict=True):
        expected = image.roll((int(y), int(x)), dims=(0, 1)).float()
        torch.testing.assert_close(result[5:-5, 5:-5], expected[5:-5, 5:-5], atol=0.05, rtol=0)


def test_what_comes_in_from_outside_is_the_mirrored_image_or_its_edge_repeated(batch):
    draws = replace(still(5), shifts=torch.tensor([4 / 24, 0]).expand(5, 2))
    source = batch.float()
    mirrored = torch.cat([source[:, :, :4].flip(2), source[:, :, :-4]], 2)
    torch.testing.assert_close(augment(batch, draws), mirrored, atol=0.05, rtol=0)
    repeated = torch.cat([source[:, :, :1].expand(-1, -1, 4, -1), source[:, :, :-4]], 2)
    found = augment(batch, replace(draws, fill="nearest"))
    torch.testing.assert_close(found, repeated, atol=0.05, rtol=0)


@pytest.mark.parametrize("fill", ["reflection", "nearest"])
def test_moves_leave_no_black_corners(fill):
    white = torch.full((1, 16, 16, 3), 200, dtype=torch.uint8)
    moves = {"angles": torch.tensor([45.0]), "scales": torch.tensor([0.5]), "fill": fill}
    torch.testing.assert_close(augment(white, replace(still(1), **moves)), white.float())


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


def test_stains_change_as_in_the_space_of_scikit_image():
    draws = draw(5, Augmentation(stain=0.2), seeded())
    draws = replace(draws, stain_shifts=draws.stain_shifts.abs() / 10)  # of tissue, none is below 0
    stains = np.random.default_rng(0).uniform(0.01, 0.06, (5, 8, 8, 3)).astype(np.float32)
    tissue = hed2rgb(stains)
    np.testing.assert_allclose(rgb2hed(tissue), stains, atol=1e-5)
    factors, shifts = draws.stain_factors.numpy(), draws.stain_shifts.numpy()
    expected = hed2rgb(stains * factors[:, None, None] + shifts[:, None, None])
    found = augment(torch.from_numpy(255 * tissue), draws)
    np.testing.assert_allclose(found, 255 * expected, atol=0.05)
    assert np.abs(expected - tissue).max() > 0.05


def test_stains_leave_black_images_black(batch):
    found = augment(torch.zeros_like(batch), draw(5, Augmentation(stain=0.05), seeded()))
    assert found.max() < 4


def test_every_draw_differs_between_the_images_of_a_batch():
    draws = draw(64, ALL, seeded())
    for field in fields(draws):
        if field.name not in ("flips", "fill"):
            drawn = getattr(draws, field.name)
            assert len(drawn.unique()) == drawn.numel() >= 64, field.name
    assert 16 < draws.flips.sum() < 48
    one = torch.rand(1, 16, 16, 3, generator=seeded()) * 255
    found = augment(one.expand(64, -1, -1, -1), draws)
    assert min((found[i] - found[j]).abs().max() for i in range(8) for j in range(i)) > 1


def test_draws_stay_in_their_ranges_and_fill_them():
    draws = draw(4000, ALL, seeded())
    ranges = {
        "angles": (-10, 10),
        "shifts": (-0.1, 0.1),
        "shears": (-5, 5),
        "scales": (0.9, 1.3),
        "brightness": (0.7, 1.1),
        "contrast": (0.8, 1.2),
        "saturation": (0.8, 1.2),
        "hue": (-0.05, 0.05),
        "stain_factors": (0.95, 1.05),
        "stain_shifts": (-0.05, 0.05),
    }
    for name, (low, high) in ranges.items():
        drawn, slack = getattr(draws, name), 0.01 * (high - low)
        assert low - 1e-6 <= drawn.min() < low + slack, name
        assert high - slack < drawn.max() <= high + 1e-6, name


def test_equally_much_is_drawn_whatever_is_switched_on():
    """So that what is on alone draws as it does with all others, and the next batch, too."""
    generator, ends = seeded(), []
    full = draw(7, ALL, generator)
    ends.append(generator.get_state())
    for name in CHANGED_BY:
        generator = seeded()
        alone = draw(7, replace(Augmentation(), **{name: getattr(ALL, name)}), generator)
        ends.append(generator.get_state())
        for field in CHANGED_BY[name]:
            assert torch.equal(getattr(alone, field), getattr(full, field)), field
    assert all(torch.equal(end, ends[0]) for end in ends)


def test_equal_seeds_draw_equally_and_results_are_grey_levels(batch):
    first = augment(batch, draw(5, ALL, seeded(3)))
    assert torch.equal(first, augment(batch, draw(5, ALL, seeded(3))))
    assert not torch.equal(first, augment(batch, draw(5, ALL, seeded(4))))
    assert first.dtype == torch.float32
    assert first.shape == batch.shape
    bright = augment(batch, replace(still(5), brightness=torch.full((5,), 3.0)))
    assert (bright.min(), bright.max()) == (0, 255)


def test_masks_are_moved_with_the_image_and_keep_their_values(batch):
    mask = torch.zeros(5, 24, 24, 1, dtype=torch.uint8)
    mask[:, 6:14, 4:12] = 255
    draws = draw(5, ALL, seeded())
    moved = augment(torch.cat([batch, mask], dim=3), draws)
    assert moved.shape == (5, 24, 24, 4)
    torch.testing.assert_close(moved[..., :3], augment(batch, draws))
    colours = still(5)
    for name in ("flips", "angles", "shifts", "shears", "scales"):
        colours = replace(colours, **{name: getattr(draws, name)})
    expected = augment(mask.expand(-1, -1, -1, 3), replace(colours, fill=draws.fill))
    torch.testing.assert_close(moved[..., 3:], expected[..., :1], atol=1e-3, rtol=0)
