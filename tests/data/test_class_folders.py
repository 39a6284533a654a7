"""Trees with one folder a class: the general reader, and the two sets that are such trees."""

from collections import Counter

import numpy as np
import pytest

from hemaml.core.cache import array_digest
from hemaml.core.errors import ConfigError, DataError
from hemaml.data.reading import read_dataset, verify_dataset


@pytest.fixture
def tree(tmp_path, save_picture, rng, monkeypatch):
    """Two classes of three images of different sizes and formats, one of them nested."""
    monkeypatch.setenv("HEMAML_DATA", str(tmp_path))
    root = tmp_path / "cells"
    for number, name in enumerate(["b/1.png", "b/2.bmp", "b/x/3.tif", "a/1.png", "a/2.PNG"]):
        save_picture(root / name, rng.integers(0, 256, (5 + number, 6, 3), dtype=np.uint8))
    save_picture(root / "a" / "grey.png", rng.integers(0, 256, (4, 4), dtype=np.uint8))
    (root / "a" / "Thumbs.db").write_text("not ours")
    return root


SECTION = {"reader": "class_folders", "root": "cells"}


def files_of(problems):
    return sorted(problem.file for problem in problems)


def test_each_folder_is_a_class(tree):
    dataset = read_dataset(SECTION)
    assert dataset.name == "cells"
    assert dataset.classes == ("a", "b")
    assert dataset.ids == ("a/1", "a/2", "a/grey", "b/1", "b/2", "b/x/3")
    assert dataset.labels == (0, 0, 0, 1, 1, 1)
    assert dataset.groups == dataset.parts == dataset.masks == ()
    assert [i.shape for i in dataset.images][2:5] == [(4, 4, 3), (5, 6, 3), (6, 6, 3)]
    assert dataset.image_digests == tuple(array_digest(image) for image in dataset.images)
    assert verify_dataset(SECTION) == []


def test_a_copy_in_another_official_part_is_an_error(tree):
    (tree / "b" / "copy.bmp").write_bytes((tree / "b" / "2.bmp").read_bytes())
    ids = ["a/1", "a/2", "a/grey", "b/1", "b/2", "b/copy", "b/x/3"]
    section = {**SECTION, "table": "parts.csv", "parts": True}
    for part, severity in (("test", "error"), ("train", "warning")):
        rows = [f"{name},{name},{part if name == 'b/copy' else 'train'}" for name in ids]
        (tree / "parts.csv").write_text("\n".join(["id,group,part", *rows]) + "\n")
        (problem,) = verify_dataset(section)
        assert (problem.file, problem.severity) == ("b/2", severity)
        assert "b/copy" in problem.found and ("lie in test, train" in problem.found) == (
            severity == "error"
        )


def test_folders_may_share_a_class(tree, save_picture):
    save_picture(tree / "c" / "1.png", np.ones((4, 4, 3), np.uint8))
    dataset = read_dataset({**SECTION, "classes": {"well": ["b"], "ill": ["c", "a"]}})
    assert dataset.classes == ("well", "ill")
    assert dataset.labels == (1, 1, 1, 0, 0, 0, 1)


def test_the_class_counts_for_an_items_identity(tree):
    plain = read_dataset(SECTION)
    turned = read_dataset({**SECTION, "classes": {"b": ["b"], "a": ["a"]}})
    assert plain.image_digests == turned.image_digests
    assert not set(plain.digests) & set(turned.digests)


def test_a_table_names_groups_and_parts(tree):
    rows = ["a/1,p,x", "a/2,p,x", "a/grey,q,x", "b/1,r,y", "b/2,r,y", "b/x/3,s,test"]
    (tree / "g.csv").write_text("\n".join(["id,group,part,note", *rows]) + "\n")
    assert read_dataset({**SECTION, "table": "g.csv"}).parts == ()
    dataset = read_dataset({**SECTION, "table": "g.csv", "parts": True})
    assert dataset.groups == ("p", "p", "q", "r", "r", "s")
    assert dataset.parts == ("x", "x", "x", "y", "y", "test")


def test_every_bad_row_is_named(tree):
    rows = ["a/1,p", "a/1,p", "a/2,", "b/1,r", "b/2,r", "b/x/3,s", "b/9,s"]
    (tree / "g.csv").write_text("\n".join(["id,group", *rows]) + "\n")
    section = {**SECTION, "table": "g.csv"}
    problems = verify_dataset(section)
    found = sorted((p.file, p.found) for p in problems)
    assert [file for file, _ in found] == ["a/2.PNG", "a/grey.png", "g.csv", "g.csv", "g.csv"]
    assert "2 rows have id 'a/1'" in found[2][1]
    assert "'group': ''" in found[3][1]
    assert "'b/9'" in found[4][1]
    with pytest.raises(DataError, match=r"4 more found: `hemaml data verify`"):
        read_dataset(section)


def test_a_table_that_is_absent_or_lacks_a_column_is_one_fault(tree):
    section = {**SECTION, "table": "g.csv"}
    (problem,) = verify_dataset(section)
    assert (problem.file, problem.rule) == ("g.csv", "the table must exist")
    (tree / "g.csv").write_text("id,patient\na/1,p\n")
    (problem,) = verify_dataset(section)
    assert problem.rule == "a table must have the columns id, group"


def test_every_bad_file_is_named(tree, save_picture):
    whole = (tree / "b" / "1.png").read_bytes()
    (tree / "b" / "1.png").write_bytes(whole[:60])
    (tree / "b" / "4.jpg").write_text("no picture")
    (tree / "a" / "notes.txt").write_text("")
    save_picture(tree / "a" / "1.bmp", np.zeros((3, 3, 3), np.uint8))
    (tree / "empty").mkdir()
    problems = verify_dataset(SECTION)
    assert files_of(problems) == sorted(
        ["a/1.bmp", "a/1.png", "a/notes.txt", "b/1.png", "b/4.jpg", "empty"]
    )
    assert {p.severity for p in problems} == {"error"}
    with pytest.raises(DataError, match="more found"):
        read_dataset(SECTION)


def test_a_file_that_was_good_before_is_verified_again(tree):
    read_dataset(SECTION)
    (tree / "b" / "1.png").write_bytes(b"")
    assert files_of(verify_dataset(SECTION)) == ["b/1.png"]
    with pytest.raises(DataError, match=r"b/1\.png"):
        read_dataset(SECTION)


def test_named_classes_make_other_and_absent_folders_faults(tree):
    problems = verify_dataset({**SECTION, "classes": {"a": ["a"], "c": ["c"]}})
    assert [(p.file, p.found) for p in problems] == [
        ("b", "'b' is another"),
        ("c", "there is none"),
    ]


def test_a_root_without_folders_is_told(tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"Set `data\.root`"):
        read_dataset({**SECTION, "root": str(tmp_path / "none")})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"classes": {"a": ["x"], "b": ["x"]}}, r"a folder belongs to one class.*\['x'\]"),
        ({"classes": {"a": ["x"]}}, "data.classes"),
        ({"parts": True}, "`parts: true` needs a `table:`"),
    ],
)
def test_wrong_sections_are_told(tree, keys, message):
    with pytest.raises(ConfigError, match=message):
        read_dataset({**SECTION, **keys})


@pytest.fixture
def smears(tmp_path, save_picture, rng):
    for name in ("Benign", "Early", "Pre", "Pro"):
        image = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        save_picture(tmp_path / name / "WBC-1.jpg", image)
    return {"reader": "all_images", "root": str(tmp_path)}


def test_all_images_is_binary_or_has_four_classes(smears):
    binary, four = read_dataset(smears), read_dataset({**smears, "classes": "four"})
    assert (binary.classes, binary.labels) == (("healthy", "leukemia"), (0, 1, 1, 1))
    assert (four.classes, four.labels) == (("benign", "early", "pre", "pro"), (0, 1, 2, 3))
    assert binary.name != four.name
    assert binary.groups == four.groups == ()


def test_all_images_names_unknown_empty_and_nested_folders(smears, tmp_path):
    (tmp_path / "Pre" / "WBC-1.jpg").unlink()
    (tmp_path / "Late").mkdir()
    (tmp_path / "Pro" / "more").mkdir()
    assert files_of(verify_dataset(smears)) == ["Late", "Pre", "Pro/more"]


def test_the_real_sets(real_data):
    dataset = read_dataset({"reader": "all_images"})
    assert Counter(dataset.labels) == {0: 220, 1: 1000}
    assert dataset.images[3].shape == (224, 224, 3)
    cells = read_dataset({"reader": "pbc"})
    assert Counter(cells.labels) == dict.fromkeys(range(8), 200)
    assert cells.classes[3] == "ig"
