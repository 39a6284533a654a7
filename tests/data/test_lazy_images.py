"""Images that are decoded when asked for: once for their digest, never held, never stale."""

import os
import time

import numpy as np
import pytest

import hemaml.data.lazy_images as lazy
from hemaml.core.errors import DataError
from hemaml.data.lazy_images import FileImages, image_files


@pytest.fixture
def pictures(tmp_path, save_picture, rng):
    """Five images, older than the grain of the clock."""
    names = [f"{i}.bmp" for i in range(5)]
    for name in names:
        path = save_picture(tmp_path / name, rng.integers(0, 256, (6, 7, 3), dtype=np.uint8))
        os.utime(path, ns=(10**18, 10**18))
    return tmp_path, names


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files that are decoded; the clock says that all files are old."""
    calls = []

    def decode(path, *, name):
        calls.append(name)
        return original(path, name=name)

    original = lazy.decode_image
    monkeypatch.setattr(lazy, "decode_image", decode)
    ahead = time.time_ns() + 10**10
    monkeypatch.setattr("hemaml.data.digests.time.time_ns", lambda: ahead)
    return calls


def test_each_file_is_decoded_once_for_its_digest(pictures, decoded):
    first, _ = image_files(*pictures)
    assert sorted(decoded) == pictures[1]
    again, _ = image_files(*pictures)
    assert len(decoded) == 5
    assert again == first


def test_only_a_changed_file_is_decoded_again(pictures, decoded, save_picture):
    root, names = pictures
    before, _ = image_files(root, names)
    save_picture(root / names[2], np.zeros((6, 7, 3), np.uint8))
    after, _ = image_files(root, names)
    assert decoded[5:] == [names[2]]
    assert [a.digest == b.digest for a, b in zip(before, after, strict=True)].count(False) == 1


def test_bad_files_are_told_apart_from_good_ones(pictures, decoded):
    root, names = pictures
    (root / names[1]).write_bytes(b"BM")
    (root / names[3]).unlink()
    for _ in range(2):  # a bad file is not remembered
        files, faults = image_files(root, names)
        assert [file.name for file in files] == [names[i] for i in (0, 2, 4)]
        assert [fault.problem.file for fault in faults] == [names[1], names[3]]


def test_nothing_is_decoded_before_it_is_asked_for(pictures, decoded):
    root, names = pictures
    images = FileImages(root, tuple(image_files(root, names)[0]))
    del decoded[:]
    part = images[1:4]
    assert len(part) == 3 and decoded == []
    assert np.array_equal(part[0], images[1])
    assert decoded == [names[1]] * 2
    with pytest.raises(IndexError):
        images[5]


def test_an_image_that_changes_in_use_is_refused(pictures, save_picture):
    root, names = pictures
    images = FileImages(root, tuple(image_files(root, names)[0]))
    os.utime(root / names[0])  # the times alone may change
    assert images[0].shape == (6, 7, 3)
    save_picture(root / names[0], np.zeros((6, 7, 3), np.uint8))
    with pytest.raises(DataError, match=r"0\.bmp: an image must not change.*Start again"):
        images[0]
