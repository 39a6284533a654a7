"""Tiles: an even grid, whole images to cut from, and what does not suit them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemaml.core.cache import Cache, array_digest
from hemaml.core.errors import DataError
from hemaml.data.tiles import frames, grid_places, grid_tiles, tiled


@given(st.integers(10, 99), st.integers(10, 99), st.integers(1, 12), st.integers(1, 10))
def test_a_grid_lies_within_the_image_and_reaches_its_corners(height, width, num, side):
    places = grid_places(height, width, num, side)
    assert len(places) == num
    assert all(0 <= top <= height - side and 0 <= left <= width - side for top, left in places)
    mirrored = {(height - side - top, width - side - left) for top, left in places}
    assert all(min(abs(top - t) + abs(left - x) for t, x in places) <= 2 for top, left in mirrored)


def test_the_grid_has_the_shape_of_the_image():
    assert grid_places(100, 200, 2, 50) == [(25, 0), (25, 150)]
    assert grid_places(200, 100, 2, 50) == [(0, 25), (150, 25)]
    assert grid_places(100, 150, 6, 50) == [(t, x) for t in (0, 50) for x in (0, 50, 100)]
    assert grid_places(80, 80, 1, 50) == [(15, 15)]


def noise(*shapes):
    draws = np.random.default_rng(0)
    images = [draws.integers(256, size=(*shape, 3), dtype=np.uint8) for shape in shapes]
    return images, [array_digest(image) for image in images]


def test_rows_are_the_tiles_of_one_image_after_the_other(tmp_path):
    images, digests = noise((40, 60), (50, 40))
    for cache in (Cache.off(), Cache(tmp_path), Cache(tmp_path)):
        rows = tiled(images, digests, 6, 16, cache)
        expected = np.concatenate([grid_tiles(image, 6, 16) for image in images])
        np.testing.assert_array_equal(rows[:], expected)
    top, left = grid_places(40, 60, 6, 16)[4]
    np.testing.assert_array_equal(rows[4], images[0][top : top + 16, left : left + 16])


def test_frames_are_whole_images_of_one_size(tmp_path):
    images, digests = noise((40, 60), (40, 60))
    for cache in (Cache.off(), Cache(tmp_path), Cache(tmp_path)):
        np.testing.assert_array_equal(frames(images, digests, 16, cache)[:], images)
    other, more = noise((41, 60))
    with pytest.raises(DataError, match=r"40 x 60 pixels and one is 41 x 60.*grid"):
        frames(images + other, digests + more, 16, Cache.off())


@pytest.mark.parametrize("shape", [(15, 60), (60, 15)])
def test_an_image_smaller_than_a_tile_says_what_to_lower(shape):
    images, digests = noise(shape)
    for cut in (lambda: tiled(images, digests, 2, 16, Cache.off()),
                lambda: frames(images, digests, 16, Cache.off()),
                lambda: grid_tiles(images[0], 2, 16)):  # fmt: skip
        with pytest.raises(DataError, match=r"tiles of 16 pixels.*Lower `size`"):
            cut()
