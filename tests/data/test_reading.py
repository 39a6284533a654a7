import subprocess
import sys

import pytest

from hemaml.core.errors import ConfigError, UnknownName
from hemaml.core.types import Frozen
from hemaml.data.reading import (
    Reader,
    dataset_root,
    load_reader,
    read_dataset,
    reader_names,
    verify_dataset,
)


def test_readers_are_found_by_their_modules():
    assert {"image_mask_pairs", "segmentation_wbc", "smears"} <= set(reader_names())
    assert "decode" not in reader_names()
    for name in reader_names():
        reader = load_reader(name)
        assert isinstance(reader, Reader)
        assert issubclass(reader.spec, Frozen)


def test_finding_readers_imports_nothing_heavy():
    code = (
        "import sys; from hemaml.data.reading import reader_names; reader_names();"
        "print([m for m in ('torch', 'skimage', 'scipy', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_section_is_read():
    dataset = read_dataset({"reader": "smears", "count": 2, "size": 40})
    assert len(dataset) == 2
    assert verify_dataset({"reader": "smears", "count": 2, "size": 40}) == []


def test_an_unknown_reader_lists_the_known_ones():
    with pytest.raises(UnknownName, match=r"unknown reader 'smear'; known: smears"):
        read_dataset({"reader": "smear"})


def test_a_missing_reader_is_named():
    with pytest.raises(ConfigError, match=r"data\.reader: must name a reader"):
        read_dataset({"count": 3})


def test_each_wrong_key_is_named_with_its_path():
    with pytest.raises(ConfigError) as error:
        read_dataset({"reader": "segmentation_wbc", "set": 3, "roof": "/"})
    assert "data.set" in str(error.value)
    assert "data.roof" in str(error.value)


def test_roots_are_absolute_or_below_the_data_folder(tmp_path, monkeypatch):
    (tmp_path / "cells").mkdir()
    assert dataset_root(tmp_path / "cells", default="x") == tmp_path / "cells"
    monkeypatch.setenv("HEMAML_DATA", str(tmp_path))
    assert dataset_root(None, default="cells") == tmp_path / "cells"
    with pytest.raises(ConfigError, match=r"data\.root: must name the folder"):
        dataset_root(None, default="smears")
    monkeypatch.delenv("HEMAML_DATA")
    with pytest.raises(ConfigError, match="HEMAML_DATA"):
        dataset_root(None, default="cells")
