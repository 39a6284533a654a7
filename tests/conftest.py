"""Fixtures: a working folder of its own for each test, and the real data where there is any."""

import gc
import os
import secrets
import shutil
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[1]
os.environ.setdefault("OMP_NUM_THREADS", "1")
gc.disable()  # until all tests are imported: a fifth of that would be garbage collection
# A shell's background job ignores Ctrl-C, and so would the processes that tests send it to.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Ray asks for a token, and would write one into the home folder of whoever runs the tests.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
# A password that a test keeps is kept in no keyring of theirs.
os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"
# A busy machine and a first compilation are slow; neither says anything about the code.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")


def pytest_collection_modifyitems(items):
    """Files with slow tests first: begun last, they would keep one core waiting for the other."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish():
    """What has been imported stays."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """The file of an MLflow store that has its tables and nothing in them: these take seconds."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("pragma journal_mode=wal")
        MlflowClient(f"sqlite:///{file}").search_experiments()
        connection.execute("pragma wal_checkpoint(truncate)")
    return file


@pytest.fixture
def workplace(tmp_path, monkeypatch, empty_store):
    """A folder with the repository's experiments and spaces, an empty store, and no settings."""
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_store, tmp_path / "mlruns" / "mlflow.db")
    for name in ("experiments", "search_spaces"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("HEMAML_DATA", "MLFLOW_TRACKING_URI", "HEMAML_STUDY_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HEMAML_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def real_data():
    """The folder of real data sets; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("HEMAML_DATA") or ROOT.parent / "shared" / "data").resolve()
    if not (folder / "segmentation_WBC").is_dir():
        pytest.skip(f"needs the real data sets: {folder}/segmentation_WBC is absent (HEMAML_DATA)")
    return folder


@pytest.fixture
def stub(workplace, monkeypatch):
    """The stub objective under the name `stub.stub`, in this process; see `tests/stub.py`."""
    import stub

    import hemaml.core.objective
    import hemaml.record

    monkeypatch.setitem(sys.modules, "hemaml.objectives.stub.stub", stub)
    for module in (hemaml.core.objective, hemaml.record):
        monkeypatch.setattr(module, "objective_names", lambda: ["stub.stub"])
    monkeypatch.setattr(stub, "on_step", [])
    monkeypatch.setattr(stub, "trained", [])
    return stub


@pytest.fixture
def one_thread():
    """Equal losses to the last bit are promised for equal numbers of threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def local_ray():
    """A Ray of this machine with four processors, whatever it has, that all tests share."""
    import ray

    from hemaml.engines.ray_cluster import start

    start(num_cpus=4)
    yield
    ray.shutdown()
