"""Colours and textures of parts: the whole image is a part of itself, and a part knows no more."""

import numpy as np
import pytest

from hemaml.ops.texture import (
    DISTANCES,
    NUM_CO_OCCURRENCE,
    NUM_MOMENTS,
    NUM_PATTERNS,
    co_occurrence,
    colour_moments,
    local_patterns,
    to_grey,
)

MEASURES = (
    (colour_moments, NUM_MOMENTS),
    (lambda image, part=None: co_occurrence(to_grey(image), part), NUM_CO_OCCURRENCE),
    (lambda image, part=None: local_patterns(to_grey(image), part), NUM_PATTERNS),
)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)


@pytest.mark.parametrize(("measure", "num"), MEASURES)
def test_the_whole_image_is_the_part_of_all_pixels(image, measure, num):
    whole = measure(image)
    assert whole.shape == (num,)
    np.testing.assert_allclose(measure(image, np.ones((20, 24), bool)), whole, atol=1e-12)
    np.testing.assert_array_equal(measure(image, np.zeros((20, 24), bool)), np.zeros(num))


@pytest.mark.parametrize(("measure", "num"), MEASURES[:2])
def test_what_lies_outside_does_not_matter(image, measure, num):
    part = np.zeros((20, 24), bool)
    part[4:12, 6:20] = True
    other = image.copy()
    other[~part] = 255 - other[~part]
    np.testing.assert_array_equal(measure(other, part), measure(image, part))
    rectangle = image[4:12, 6:20].copy()
    np.testing.assert_allclose(measure(image, part), measure(rectangle), atol=1e-9)


def test_a_plain_colour_has_no_spread_and_one_pair_of_levels():
    plain = np.full((9, 9, 3), (100, 150, 200), np.uint8)
    moments = colour_moments(plain)
    assert moments[:3] == pytest.approx([100 / 255, 150 / 255, 200 / 255])
    assert moments[[3, 4, 5, 12, 13, 14, 21, 22, 23]] == pytest.approx([0] * 9, abs=1e-6)
    found = co_occurrence(to_grey(plain)).reshape(6, len(DISTANCES))
    contrast, dissimilarity, homogeneity, second_moment, correlation, entropy = found
    assert contrast == pytest.approx([0] * 3) and dissimilarity == pytest.approx([0] * 3)
    assert homogeneity == pytest.approx([1] * 3) and second_moment == pytest.approx([1] * 3)
    assert correlation == pytest.approx([1] * 3) and entropy == pytest.approx([0] * 3)
