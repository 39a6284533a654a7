import numpy as np
import pytest

from hemaml.core.errors import ConfigError, DataError
from hemaml.data.reading import read_dataset, verify_dataset

LEVELS = {"background": 0, "cytoplasm": 128, "nucleus": 255}


@pytest.fixture
def folder(tmp_path, save_picture, rng):
    for name in ("b", "a", "c"):
        image = rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)
        save_picture(tmp_path / "cells" / "images" / f"{name}.png", image)
        grey = rng.choice(np.array([0, 128, 255], dtype=np.uint8), (6, 5))
        save_picture(tmp_path / "cells" / "masks" / f"{name}.png", grey)
    return tmp_path / "cells"


def section(folder, **more):
    return {"reader": "image_mask_pairs", "root": str(folder), "levels": LEVELS, **more}


def test_pairs_are_read_in_order_of_their_ids(folder):
    dataset = read_dataset(section(folder))
    assert dataset.name == "cells"
    assert dataset.classes == ("background", "cytoplasm", "nucleus")
    assert dataset.ids == ("a", "b", "c")
    assert dataset.labels == ()
    assert dataset.groups == ()
    assert len(dataset.masks) == 3
    assert verify_dataset(section(folder)) == []


def test_a_table_brings_groups_and_labels(folder):
    (folder / "t.csv").write_text("id,group,label\nc,p1,hem\na,p2,all\nb,p1,hem\n")
    dataset = read_dataset(section(folder, table="t.csv"))
    assert dataset.groups == ("p2", "p1", "p1")
    assert dataset.labels == (0, 1, 1)


def test_ids_keep_the_folders_that_the_pattern_leaves_open(tmp_path, save_picture):
    for case in ("1", "2"):
        save_picture(tmp_path / case / "x.png", np.zeros((4, 4, 3), np.uint8))
        save_picture(tmp_path / "masks" / case / "x.png", np.zeros((4, 4), np.uint8))
    paths = {"images": "[12]/*.png", "masks": "masks/{id}.png"}
    assert read_dataset(section(tmp_path, **paths)).ids == ("1/x", "2/x")


def test_every_bad_file_is_named(folder, save_picture):
    (folder / "masks" / "a.png").unlink()
    save_picture(folder / "masks" / "b.png", np.full((6, 5), 9, np.uint8))
    save_picture(folder / "masks" / "c.png", np.zeros((5, 6), np.uint8))
    save_picture(folder / "images" / "c.jpg", np.zeros((6, 5, 3), np.uint8))
    (folder / "images" / "d.png").write_bytes(b"")
    (folder / "masks" / "d.png").write_bytes(b"")
    problems = verify_dataset(section(folder, images="images/*"))
    named = {problem.file: problem.found for problem in problems}
    assert sorted(named) == [
        "images/c.png",
        "images/d.png",
        "masks/a.png",
        "masks/b.png",
        "masks/c.png",
    ]
    assert "same id" in named["images/c.png"]
    assert "9 (30 pixels)" in named["masks/b.png"]
    with pytest.raises(DataError, match="hemaml data verify"):
        read_dataset(section(folder))


def test_tolerance_snaps_greys(folder, save_picture):
    save_picture(folder / "masks" / "b.png", np.full((6, 5), 120, np.uint8))
    dataset = read_dataset(section(folder, tolerance=8))
    assert (dataset.masks[1] == 1).all()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("id,group\na,1\nb,1\n", "images/c.png"),
        ("id,group\na,1\nb,\nc,2\n", "t.csv"),
        ("id,group\na,1\na,2\nb,1\nc,2\n", "t.csv"),
        ("name,group\na,1\n", "t.csv"),
        ("id\na\n", "t.csv"),
    ],
)
def test_a_bad_table_is_named(folder, text, named):
    (folder / "t.csv").write_text(text)
    problems = verify_dataset(section(folder, table="t.csv"))
    assert named in {problem.file for problem in problems}


def test_a_pattern_without_images_is_named(folder):
    with pytest.raises(DataError, match=r"data\.images: .*'images/\*\.bmp' matches none"):
        read_dataset(section(folder, images="images/*.bmp"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": {"a": 0, "b": 0}}, "distinct greys"),
        ({"levels": {"a": 0}}, "data.levels"),
        ({"images": "../*.png"}, "below root"),
        ({"masks": "/masks/{stem}.png"}, "below root"),
        ({"masks": "masks/m.png"}, "must contain"),
        ({"tolerance": -1}, "data.tolerance"),
    ],
)
def test_a_wrong_section_is_refused(folder, change, message):
    with pytest.raises(ConfigError, match=message):
        read_dataset(section(folder) | change)
