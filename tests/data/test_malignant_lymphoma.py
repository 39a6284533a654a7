"""The reader of lymph nodes: classes from folders, cases from the names of slides."""

import numpy as np
import pytest

from hemaml.core.errors import DataError
from hemaml.data.reading import read_dataset, verify_dataset

FILES = (
    "CLL/sj-03-476_001.tif", "CLL/sj-03-476_002.tif", "CLL/sj-03-852-R2_001.tif",
    "FL/sj-05-6124-R3_001.tif", "FL/sj-05-6124-R4_001.tif", "MCL/sj-05-1374_010.jpg",
)  # fmt: skip
SECTION = {"reader": "malignant_lymphoma"}


@pytest.fixture
def tree(tmp_path, save_picture, rng, monkeypatch):
    monkeypatch.setenv("HEMAML_DATA", str(tmp_path))
    for name in FILES:
        pixels = rng.integers(0, 256, (26, 34, 3), dtype=np.uint8)
        save_picture(tmp_path / "malignant_lymphoma" / name, pixels)
    return tmp_path / "malignant_lymphoma"


def test_slides_of_one_case_are_one_group(tree):
    data = read_dataset(SECTION)
    assert data.name == "malignant_lymphoma"
    assert data.classes == ("CLL", "FL", "MCL")
    assert data.labels == (0, 0, 0, 1, 1, 2)
    cases = ["sj-03-476", "sj-03-476", "sj-03-852", "sj-05-6124", "sj-05-6124", "sj-05-1374"]
    assert list(data.groups) == cases
    slides = read_dataset({**SECTION, "group": "slide"})
    assert slides.groups[2:5] == ("sj-03-852-R2", "sj-05-6124-R3", "sj-05-6124-R4")
    assert slides.digest == data.digest
    assert verify_dataset(SECTION) == []


def test_a_name_without_a_case_is_refused(tree, save_picture):
    save_picture(tree / "FL" / "scan.png", np.ones((4, 4, 3), np.uint8))
    with pytest.raises(DataError, match=r"FL/scan\.png.*<slide>_<number>"):
        read_dataset(SECTION)
    (problem,) = verify_dataset(SECTION)
    assert problem.file == "FL/scan.png"


def test_the_real_sample_has_twenty_cases(real_data, monkeypatch):
    monkeypatch.setenv("HEMAML_DATA", str(real_data))
    data = read_dataset(SECTION)
    assert len(data) == 262
    assert [len({g for g, c in zip(data.groups, data.labels, strict=True) if c == k})
            for k in range(3)] == [7, 6, 7]  # fmt: skip
    assert len(set(read_dataset({**SECTION, "group": "slide"}).groups)) == 21
