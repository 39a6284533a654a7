"""C-NMC: subjects, folds and the preliminary test set, from the names alone."""

from collections import Counter

import numpy as np
import pytest

from hemaml.core.errors import DataError
from hemaml.core.sweep import Split
from hemaml.data.c_nmc import subject_of
from hemaml.data.reading import read_dataset, verify_dataset
from hemaml.data.splits import folds, held_out, outer
from hemaml.tasks.leukemia import task

TEST_DATA = "C-NMC_test_prelim_phase_data"
NAMES = [
    "fold_0/all/UID_1_1_1_all.bmp",
    "fold_0/all/UID_1_2_1_all.bmp",
    "fold_0/hem/UID_H3_1_1_hem.bmp",
    "fold_0/hem/UID_h3_1_2_hem.bmp",
    "fold_1/all/UID_3_1_1_all.bmp",
    "fold_2/hem/UID_H7_1_1_hem.bmp",
    "fold_2/all/UID_8_1_1_all.bmp",
]
SECTION = {"reader": "c_nmc"}
WITH_TEST = {**SECTION, "test_table": f"{TEST_DATA}_labels.csv"}


@pytest.fixture
def root(tmp_path, save_picture, rng, monkeypatch):
    monkeypatch.setenv("HEMAML_DATA", str(tmp_path))
    folder = tmp_path / "C-NMC"
    for name in [*NAMES, *(f"{TEST_DATA}/{i}.bmp" for i in (1, 2))]:
        save_picture(folder / name, rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    write_table(folder, "UID_57_29_1_all.bmp,1.bmp,1", "UID_H49_29_1_hem.bmp,2.bmp,0")
    return folder


def write_table(folder, *rows):
    table = folder / f"{TEST_DATA}_labels.csv"
    table.write_text("\n".join(["Patient_ID,new_names,labels", *rows]) + "\n")


def test_subjects_labels_and_folds_come_from_names(root):
    dataset = read_dataset(SECTION)
    assert dataset.name == task.usual_data
    assert dataset.classes == ("healthy", "leukemia")
    assert dataset.ids[0] == "fold_0/all/UID_1_1_1_all"
    assert dict(zip(dataset.ids, dataset.groups, strict=True)) == {
        "fold_0/all/UID_1_1_1_all": "1",
        "fold_0/all/UID_1_2_1_all": "1",
        "fold_0/hem/UID_H3_1_1_hem": "H3",
        "fold_0/hem/UID_h3_1_2_hem": "H3",
        "fold_1/all/UID_3_1_1_all": "3",
        "fold_2/all/UID_8_1_1_all": "8",
        "fold_2/hem/UID_H7_1_1_hem": "H7",
    }
    assert dataset.labels == (1, 1, 0, 0, 1, 1, 0)
    assert Counter(dataset.parts) == {"fold_0": 4, "fold_1": 1, "fold_2": 2}
    assert [(p.file, p.severity) for p in verify_dataset(SECTION)] == [(TEST_DATA, "warning")]


def test_the_preliminary_test_set_is_the_held_out_part_and_in_nothing_else(root):
    dataset = read_dataset(WITH_TEST)
    rest, held = held_out(dataset, seed=0)
    assert (held.ids, held.groups, held.labels) == (("test/1", "test/2"), ("57", "H49"), (1, 0))
    assert rest.ids == read_dataset(SECTION).ids
    assert verify_dataset(WITH_TEST) == []
    for split in (Split(), Split(folds="official", val=0.4)):
        for found in outer(dataset, split, None, 0):
            parts = [found.fold.train, found.fold.val, found.test]
            assert not any("test/" in name for part in parts for name in part.ids)
    for fold in folds(dataset, Split(folds="official")):
        assert "test" not in {*fold.train.parts, *fold.val.parts}


@pytest.mark.parametrize("where", ["elsewhere", "other/names"])
def test_the_test_set_may_lie_beside_the_root(root, tmp_path, where):
    folder = tmp_path / where
    folder.parent.mkdir(exist_ok=True)
    (root / TEST_DATA).rename(folder)
    section = {**WITH_TEST, "test_images": str(folder)}
    assert read_dataset(section).ids[-2:] == ("test/1", "test/2")
    assert read_dataset({**section, "test_images": f"../{where}"}).images[-1].shape == (9, 9, 3)


def test_every_bad_file_is_named(root, save_picture):
    picture = np.zeros((3, 3, 3), np.uint8)
    odd = [
        "fold_0/all/UID_H1_1_1_all.bmp",  # a healthy subject
        "fold_0/hem/UID_4_1_1_hem.bmp",  # not a healthy subject
        "fold_0/hem/UID_2_1_1_all.bmp",  # the other class
        "fold_1/all/cell.bmp",
        "fold_1/other/UID_2_1_1_all.bmp",
    ]
    for name in odd:
        save_picture(root / name, picture)
    (root / "fold_1" / "hem").mkdir()
    (root / NAMES[0]).write_bytes((root / NAMES[0]).read_bytes()[:100])
    named = [p.file for p in verify_dataset(SECTION) if p.severity == "error"]
    assert sorted(named) == sorted([*odd[:4], "fold_1/other", "fold_1/hem", NAMES[0]])
    with pytest.raises(DataError, match="5 more found"):
        read_dataset(SECTION)


def test_every_bad_row_is_named(root, save_picture):
    save_picture(root / TEST_DATA / "3.bmp", np.zeros((3, 3, 3), np.uint8))
    write_table(
        root,
        "UID_57_29_1_all.bmp,1.bmp,0",
        "UID_H49_29_1_hem.bmp,2.bmp,0",
        "UID_H49_29_2_hem.bmp,2.bmp,0",
        "UID_50_1_1_all.bmp,9.bmp,1",
    )
    found = [f"{p.file} {p.found}" for p in verify_dataset(WITH_TEST)]
    assert len(found) == 4
    for told in ("label '0'", "no '2.bmp'", "no '9.bmp'", f"{TEST_DATA}/3.bmp"):
        assert sum(told in line for line in found) == 1, told


def test_a_subject_on_both_sides_of_the_test_set_is_refused(root):
    write_table(root, "UID_1_29_1_all.bmp,1.bmp,1", "UID_H49_29_1_hem.bmp,2.bmp,0")
    with pytest.raises(DataError, match=r"must lie in one official part.*: 1\."):
        held_out(read_dataset(WITH_TEST), seed=0)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("UID_11_2_3_all.bmp", ("11", 1)),
        ("UID_h3_2_1_hem.bmp", ("H3", 0)),
        ("uid_H12_2_1_HEM.BMP", ("H12", 0)),
        ("UID_12_2_1_hem.bmp", None),
        ("UID_H12_2_1_all.bmp", None),
        ("UID_12_2_all.bmp", None),
        ("UID_12_2_1_all.bmp.bmp", None),
    ],
)
def test_names(name, found):
    assert subject_of(name) == found


def test_the_real_sample(real_data):
    dataset = read_dataset(SECTION)
    assert len(dataset) == 37
    assert len(set(dataset.groups)) == 18
    assert {"H3"} == {g for g in dataset.groups if g.upper() == "H3"}
    assert {image.shape for image in dataset.images} == {(450, 450, 3)}
    tests = [found.test for found in outer(dataset, Split(folds="official"), 3, 0)]
    assert [set(test.parts) for test in tests] == [{"fold_0"}, {"fold_1"}, {"fold_2"}]
