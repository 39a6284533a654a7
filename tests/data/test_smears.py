import numpy as np
import pytest

from hemaml.data import cells, segmentation_wbc
from hemaml.data.smears import CLASSES, CYCLE, Smears, read, verify


@pytest.fixture(scope="module")
def smears():
    return read(Smears(count=20))


def test_images_and_masks_match(smears):
    assert len(smears) == 20
    assert smears.classes == CLASSES
    assert "synthetic" in smears.source
    assert set(smears.labels) == {0, 1, 2, 3, 4}
    assert smears.groups == ()
    for image, mask in zip(smears.images, smears.masks, strict=True):
        assert image.shape == (120, 120, 3)
        assert mask.shape == (120, 120)
        assert image.dtype == mask.dtype == np.uint8
        assert set(np.unique(mask)) == {0, 1, 2}
    assert verify(Smears()) == []


def test_a_larger_count_extends_the_set(smears):
    assert read(Smears(count=7)).digests == smears.digests[:7]


def test_another_seed_is_another_set(smears):
    assert not set(read(Smears(count=5, seed=1)).digests) & set(smears.digests)


def test_all_images_differ(smears):
    assert len(set(smears.digests)) == len(smears)


def test_the_nucleus_is_darker_than_the_rest_and_lies_within_the_cell(smears):
    for image, mask in zip(smears.images, smears.masks, strict=True):
        grey = image.mean(axis=2)
        assert grey[mask == 2].mean() < grey[mask == 1].mean() < grey[mask == 0].mean() + 10
        edge = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert not (edge == 2).any()


def test_cell_types_differ_as_they_do_in_blood():
    dataset = read(Smears(count=60))
    share = {kind: [] for kind in range(5)}
    area = {kind: [] for kind in range(5)}
    for mask, label in zip(dataset.masks, dataset.labels, strict=True):
        share[label].append((mask == 2).sum() / (mask > 0).sum())
        area[label].append((mask > 0).sum())
    mean_share = {kind: np.mean(values) for kind, values in share.items()}
    mean_area = {kind: np.mean(values) for kind, values in area.items()}
    assert max(mean_share, key=mean_share.get) == 1  # the lymphocyte is all nucleus
    assert min(mean_area, key=mean_area.get) == 1
    assert max(mean_area, key=mean_area.get) == 2  # the monocyte is the largest


def test_thresholds_find_the_nucleus_roughly_but_not_exactly(smears):
    dice = []
    for image, mask in zip(smears.images, smears.masks, strict=True):
        green = image[:, :, 1].astype(float)
        found = green < 0.45 * np.median(green)
        nucleus = mask == 2
        dice.append(2 * (found & nucleus).sum() / (found.sum() + nucleus.sum()))
    assert 0.3 < np.mean(dice) < 0.95


def test_slides_share_light_and_are_groups():
    dataset = read(Smears(count=6, size=48, per_slide=3))
    assert dataset.groups == ("slide-0000",) * 3 + ("slide-0001",) * 3


@pytest.mark.parametrize("size", [32, 77, 300])
def test_cells_scale_with_the_image(size):
    (mask,) = read(Smears(count=1, size=size)).masks
    assert mask.shape == (size, size)
    assert 0.1 < (mask > 0).mean() < 0.5


def test_noise_can_be_turned_off():
    quiet, noisy = (read(Smears(count=1, noise=noise)).images[0] for noise in (0, 5))
    rough = [np.abs(np.diff(image[:12].astype(float), axis=1)).mean() for image in (quiet, noisy)]
    assert rough[0] < rough[1]


def test_labels_mean_the_same_as_in_the_papers_data():
    assert cells.CELL_TYPES == segmentation_wbc.CELL_TYPES


def test_types_come_in_fixed_proportions():
    assert [CYCLE.count(kind) for kind in range(5)] == [7, 5, 3, 3, 2]
