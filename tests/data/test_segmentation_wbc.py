import shutil
from collections import Counter

import numpy as np
import pytest

from hemaml.core.errors import DataError
from hemaml.core.sweep import Split
from hemaml.data.reading import read_dataset, verify_dataset
from hemaml.data.segmentation_wbc import CELL_TYPES, CLASSES
from hemaml.data.splits import unbalanced
from hemaml.tasks.wbc_segmentation import task
from hemaml.tasks.wbc_type import task as wbc_type


@pytest.fixture
def small(tmp_path, save_picture, rng, monkeypatch):
    """A set of the same layout with three pairs of different sizes."""
    monkeypatch.setenv("HEMAML_DATA", str(tmp_path))
    root = tmp_path / "segmentation_WBC"
    for number, size in ((1, (8, 9)), (2, (7, 7)), (10, (9, 8))):
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        save_picture(root / "Dataset 1" / f"{number:03d}.bmp", image)
        grey = rng.choice(np.array([0, 128, 255], dtype=np.uint8), size)
        save_picture(root / "Dataset 1" / f"{number:03d}.png", grey)
    table = root / "Class Labels of Dataset 1.csv"
    table.write_text("image ID,class label\n1,2\n2,1\n10,5\n", encoding="utf-8-sig")
    return root


SECTION = {"reader": "segmentation_wbc", "set": 1}


def test_layout_is_read(small):
    dataset = read_dataset(SECTION)
    assert dataset.name == task.usual_data == "segmentation_wbc-1"
    assert dataset.ids == ("001", "002", "010")
    assert dataset.classes == CLASSES
    assert [CELL_TYPES[label] for label in dataset.labels] == [
        "lymphocyte",
        "neutrophil",
        "basophil",
    ]
    assert [image.shape for image in dataset.images] == [(8, 9, 3), (7, 7, 3), (9, 8, 3)]
    assert [mask.shape for mask in dataset.masks] == [(8, 9), (7, 7), (9, 8)]
    assert max(mask.max() for mask in dataset.masks) == 2
    assert verify_dataset(SECTION) == []


def test_identity_is_by_content_not_by_place(small, tmp_path):
    before = read_dataset(SECTION)
    shutil.copytree(small, tmp_path / "elsewhere")
    again = read_dataset({**SECTION, "root": str(tmp_path / "elsewhere")})
    assert again.digests == before.digests
    assert again.digest == before.digest


def test_a_changed_file_changes_the_digest_of_its_item(small, save_picture):
    before = read_dataset(SECTION)
    mask = np.zeros((7, 7), dtype=np.uint8)
    save_picture(small / "Dataset 1" / "002.png", mask)
    after = read_dataset(SECTION)
    assert [a == b for a, b in zip(before.digests, after.digests, strict=True)] == [
        True,
        False,
        True,
    ]


def test_every_bad_file_is_named(small, save_picture):
    folder = small / "Dataset 1"
    (folder / "001.png").unlink()
    save_picture(folder / "002.png", np.zeros((3, 3), dtype=np.uint8))
    (folder / "010.bmp").write_bytes(b"BM")
    save_picture(folder / "011.bmp", np.zeros((3, 3, 3), dtype=np.uint8))
    table = small / "Class Labels of Dataset 1.csv"
    table.write_text(table.read_text() + "12,1\n13,6\n")
    problems = verify_dataset(SECTION)
    assert {problem.severity for problem in problems} == {"error"}
    assert sorted(problem.file for problem in problems) == [
        "Class Labels of Dataset 1.csv",
        "Dataset 1/001.png",
        "Dataset 1/002.png",
        "Dataset 1/010.bmp",
        "Dataset 1/011.bmp",
        "Dataset 1/012.bmp",
    ]
    with pytest.raises(DataError, match=r"2 more found: `hemaml data verify`"):
        read_dataset(SECTION)


def test_a_missing_table_is_an_error(small):
    (small / "Class Labels of Dataset 1.csv").unlink()
    with pytest.raises(DataError, match="the class csv must exist"):
        read_dataset(SECTION)


def test_a_repeated_image_is_a_warning(small):
    folder = small / "Dataset 1"
    shutil.copy(folder / "001.bmp", folder / "011.bmp")
    shutil.copy(folder / "001.png", folder / "011.png")
    table = small / "Class Labels of Dataset 1.csv"
    table.write_text(table.read_text() + "11,2\n")
    (problem,) = verify_dataset(SECTION)
    assert problem.severity == "warning"
    assert problem.file == "001"
    assert "011" in problem.found


def test_data_set_1_of_the_paper(real_data):
    dataset = read_dataset(SECTION)
    assert len(dataset) == 300
    assert Counter(dataset.labels) == {0: 176, 1: 53, 2: 48, 3: 22, 4: 1}
    sides = [side for image in dataset.images for side in image.shape[:2]]
    assert (min(sides), max(sides)) == (88, 120)
    assert [problem.file for problem in verify_dataset(SECTION)] == ["112"]


def test_data_set_2_of_the_paper(real_data):
    section = {"reader": "segmentation_wbc", "set": 2}
    dataset = read_dataset(section)
    assert len(dataset) == 100
    assert Counter(dataset.labels) == {0: 33, 1: 37, 2: 15, 3: 12, 4: 3}
    assert {image.shape for image in dataset.images} == {(300, 300, 3)}
    assert all(set(np.unique(mask)) <= {0, 1, 2} for mask in dataset.masks)
    strays = verify_dataset(section)
    assert [p.file[-7:-4] for p in strays] == ["034", "035", "047", "050", "076"]
    assert {p.severity for p in strays} == {"warning"}


def test_types_are_targets_and_masks_an_input(small):
    masks, types = read_dataset(SECTION), read_dataset({**SECTION, "target": "types"})
    assert types.name == "segmentation_wbc-1-types" != wbc_type.usual_data
    assert types.classes == CELL_TYPES
    assert (types.ids, types.labels, types.masks) == (masks.ids, masks.labels, ())
    for drawn, mask in zip(types.drawn, masks.masks, strict=True):
        np.testing.assert_array_equal(drawn, mask)
    assert types.digest != masks.digest and types.digests == masks.digests
    assert types.subset([2]).drawn == types.drawn[2:]


def test_both_targets_of_data_set_2_are_held_out_and_split_alike(real_data):
    section = {"reader": "segmentation_wbc", "set": 2}
    masks, types = read_dataset(section), read_dataset({**section, "target": "types"})
    assert types.name == wbc_type.usual_data
    (rest, held), (other_rest, other_held) = task.held_out(masks), wbc_type.held_out(types)
    assert (rest.ids, held.ids) == (other_rest.ids, other_held.ids)
    split = Split()
    one, other = task.folds(rest, split)[0], wbc_type.folds(other_rest, split)[0]
    assert (one.train.ids, one.val.ids) == (other.train.ids, other.val.ids)


def test_the_one_basophil_of_data_set_1_is_said(real_data):
    data = read_dataset({**SECTION, "target": "types"})
    (split,) = wbc_type.outer(data, Split(test=0.6, outer_val=0.07), 1, 0)
    told = unbalanced([split])
    assert sum("basophil" in line for line in told) == 3
    assert (
        Counter(split.test.labels)[CELL_TYPES.index("basophil")]
        + Counter(split.fold.train.labels)[CELL_TYPES.index("basophil")]
        == 1
    )
