"""Pixels at the network's size: right, shared, never stale, and in little memory."""

import subprocess
import sys

import numpy as np
import pytest

from hemaml.core.cache import Cache, array_digest
from hemaml.core.errors import DataError
from hemaml.data.pixels import resized
from hemaml.data.reading import read_dataset


def random_images(rng, num):
    return [rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8) for i in range(num)]


def digests_of(images):
    return [array_digest(image) for image in images]


def test_images_of_any_sides_become_equal_squares(rng, tmp_path):
    images = random_images(rng, 70)
    rows = resized(images, digests_of(images), 16, Cache(tmp_path))
    assert (len(rows), rows.row_shape, rows.table.dtype) == (70, (16, 16, 3), np.uint8)
    for image, row in zip(images, rows[:], strict=True):
        assert abs(image.mean() - row.mean()) < 4


def test_shrinking_averages_over_what_it_drops():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255  # without antialiasing some pixels would be black or white
    (row,) = resized([stripes], ["s"], 16, Cache.off())[:]
    assert np.abs(row.astype(int) - 127).max() < 20


def test_an_image_of_that_size_is_left_as_it_is(rng):
    image = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    (row,) = resized([image], ["i"], 16, Cache.off())[:]
    assert np.array_equal(row, image)


def test_the_cache_does_not_change_the_pixels(rng, tmp_path):
    images = random_images(rng, 5)
    off = resized(images, digests_of(images), 8, Cache.off())[:]
    for _ in range(2):
        assert np.array_equal(resized(images, digests_of(images), 8, Cache(tmp_path))[:], off)


def test_known_images_are_not_looked_up_and_sizes_are_apart(rng, tmp_path):
    images = random_images(rng, 5)
    resized(images, digests_of(images), 8, Cache(tmp_path))
    rows = resized([None] * 5, digests_of(images)[::-1], 8, Cache(tmp_path))
    assert np.array_equal(rows[[4]], resized(images[:1], ["0"], 8, Cache.off())[:])
    assert resized(images, digests_of(images), 9, Cache(tmp_path)).row_shape == (9, 9, 3)


def test_pixels_are_right_after_an_image_changes(tmp_path, save_picture, rng):
    for name in ("a/1.png", "a/2.png", "b/3.png"):
        save_picture(tmp_path / name, rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    section = {"reader": "class_folders", "root": str(tmp_path)}
    cache = Cache(tmp_path / ".cache")

    def pixels():
        data = read_dataset(section)
        return resized(data.images, data.image_digests, 6, cache)[:]

    before = pixels()
    save_picture(tmp_path / "a" / "2.png", np.full((12, 12, 3), 9, np.uint8))
    after = pixels()
    assert np.array_equal(after[[0, 2]], before[[0, 2]])
    assert (after[1] == 9).all()


STREAM = """
import resource, sys
from pathlib import Path
import numpy as np
from hemaml.core.cache import Cache
from hemaml.data.pixels import resized

class Images:
    def __len__(self): return int(sys.argv[2])
    def __getitem__(self, i): return np.full((300, 400, 3), i % 256, np.uint8)

digests = [str(i) for i in range(len(Images()))]
cache = Cache(Path(sys.argv[1]))
resized(Images(), digests, 16, cache)
again = resized(Images(), digests, 16, cache)
assert all((batch >= 0).all() for batch in again.batches(64))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    def peak_mib(num):
        command = [sys.executable, "-c", STREAM, str(tmp_path / str(num)), str(num)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout)

    few, many = peak_mib(64), peak_mib(1024)  # 22 and 352 MiB of decoded images
    assert many - few < 40, f"{few} MiB for 64 images, {many} MiB for 1024"


def test_a_file_that_vanished_is_named(tmp_path, save_picture, rng):
    paths = [
        save_picture(tmp_path / name, rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        for name in ("a/1.png", "b/3.png")
    ]
    data = read_dataset({"reader": "class_folders", "root": str(tmp_path)})
    paths[1].unlink()
    with pytest.raises(DataError, match=r"b/3\.png: the file must exist"):
        resized(data.images, data.image_digests, 6, Cache.off())
