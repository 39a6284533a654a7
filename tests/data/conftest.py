import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("HEMAML_CACHE", str(folder))
    return folder


@pytest.fixture
def real_data(monkeypatch):
    """The folder of the real data sets; skips where it is absent."""
    folder = Path(os.environ.get("HEMAML_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"needs the real data sets in HEMAML_DATA; {folder} is no folder")
    monkeypatch.setenv("HEMAML_DATA", str(folder))
    return folder


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def save_picture():
    """Writes an array as a picture, making its folder."""

    def save(path: Path, array) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(array)).save(path)
        return path

    return save
