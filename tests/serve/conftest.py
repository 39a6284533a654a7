"""A store with a champion of each task, made once for all tests of the server."""

import os

import pytest
from serve.stores import KINDS, crowned


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """The folder of a store with champions of small models of each kind."""
    folder = tmp_path_factory.mktemp("champions")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HEMAML_DATA", "HEMAML_STUDY_STORAGE"):
            patch.delenv(name, raising=False)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlruns/mlflow.db")
        patch.setenv("HEMAML_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        for kind in KINDS:
            assert crowned(kind).outcome in ("promoted", "forced")
    return folder


@pytest.fixture
def in_store(store, monkeypatch):
    """The test runs in the folder of the store, and on it."""
    monkeypatch.delenv("HEMAML_DATA", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/mlruns/mlflow.db")
    monkeypatch.setenv("HEMAML_CACHE", str(store / "cache"))
    monkeypatch.chdir(store)
    assert os.path.isdir("mlruns")
    return store
