"""Numbers of heat maps, on maps whose values follow from what they are."""

import numpy as np
import pytest
from explain.tissue import tissue
from scipy.stats import spearmanr

from hemaml.ops.heat_scores import (
    area_under,
    blurred,
    energy_inside,
    hottest,
    nuclei_mask,
    pointing,
    rank_similarity,
)


@pytest.fixture
def heat():
    return np.random.default_rng(0).random((2, 8, 10)).astype(np.float32)


def test_steps_take_the_hottest_and_end_with_all(heat):
    among = hottest(heat, 5)
    assert among.shape == (6, 2, 8, 10)
    np.testing.assert_array_equal(among.sum(axis=(1, 2, 3)), [0, 32, 64, 96, 128, 160])
    for hot in among[1:-1]:
        assert heat[hot].min() >= heat[~hot].max()
    assert (among[1:] >= among[:-1]).all(), "what is taken stays taken"


def test_equal_pixels_come_in_a_drawn_order_that_is_fixed():
    blank = np.zeros((1, 20, 20), np.float32)
    half = hottest(blank, 2)[1, 0]
    assert 60 < half[:10].sum() < 140, "not from the top"
    np.testing.assert_array_equal(half, hottest(blank, 2)[1, 0])
    assert (half != hottest(blank, 2, seed=1)[1, 0]).any()


def test_areas():
    assert area_under(np.ones(11, np.float32)) == 1
    assert area_under(np.linspace(0, 1, 11, dtype=np.float32)) == pytest.approx(0.5)
    assert area_under(np.array([1, 0, 0], np.float32)) == pytest.approx(0.25)


def test_a_blurred_image_keeps_its_mean_and_no_details():
    image, inside = tissue(height=224, width=224)
    soft = blurred(image)
    assert soft.shape == image.shape and soft.dtype == np.uint8
    np.testing.assert_allclose(soft.mean(axis=(0, 1)), image.mean(axis=(0, 1)), atol=2)
    fine = np.random.default_rng(0).integers(0, 255, (224, 224, 3), dtype=np.uint8)
    assert blurred(fine).std() < fine.std() / 10


def test_nuclei_are_found():
    for seed in range(3):
        image, inside = tissue(seed)
        assert (nuclei_mask(image) == inside).mean() > 0.98


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (230, 160, 200)])
def test_an_image_of_one_colour_has_no_nuclei(colour):
    assert not nuclei_mask(np.full((9, 9, 3), colour, np.uint8)).any()


def test_the_black_around_a_cell_that_was_cut_out_is_no_nucleus():
    cell = np.full((40, 40, 3), (230, 200, 220), np.uint8)
    cell[12:28, 12:28] = (90, 40, 140)
    nucleus = nuclei_mask(cell)
    assert nucleus[12:28, 12:28].all() and nucleus.sum() == 16 * 16
    framed = np.zeros((100, 100, 3), np.uint8)
    framed[30:70, 30:70] = cell
    mask = nuclei_mask(framed)
    assert (mask[30:70, 30:70] == nucleus).all() and mask.sum() == nucleus.sum()


def test_pointing_and_energy():
    heat = np.zeros((4, 4), np.float32)
    heat[0, 0], heat[3, 3] = 3, 1
    left = np.zeros((4, 4), bool)
    left[:, :2] = True
    assert pointing(heat, left) == 1 and pointing(heat, ~left) == 0
    assert energy_inside(heat, left) == 0.75
    assert energy_inside(heat, np.zeros_like(left)) == 0


def test_a_map_without_heat_points_by_chance():
    mask = np.zeros((4, 4), bool)
    mask[0] = True
    blank = np.zeros((4, 4), np.float32)
    assert pointing(blank, mask) == energy_inside(blank, mask) == 0.25


def test_rank_similarity_is_scipys_and_defined_everywhere(heat):
    one, other = heat
    expected = spearmanr(one.ravel(), other.ravel()).statistic
    assert rank_similarity(one, other) == pytest.approx(expected)
    assert rank_similarity(one, one**3) == pytest.approx(1)
    assert rank_similarity(one, -one) == pytest.approx(-1)
    assert rank_similarity(one, np.zeros_like(one)) == 0
