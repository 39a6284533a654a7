"""The tracker on a real SQLite store."""

import math
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException

from hemaml.core.dataset import Dataset
from hemaml.core.errors import StoreError
from hemaml.tracking import mlflow_tracker
from hemaml.tracking.mlflow_tracker import MlflowTracker
from hemaml.tracking.outages import RETRIES
from hemaml.tracking.registry import Registry

THREADS, LATE_S = 4, 30


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def tracker(uri):
    return MlflowTracker(uri, "task")


def test_a_run_reads_back(tracker, tmp_path):
    parent = tracker.start("parent", {"kind": "sweep"})
    run = tracker.start("child", {"kind": "trial", "trial": 3}, parent.id)
    run.log_params({"lr": 0.1, "conv": "gin", "none": None})
    for step in range(5):
        run.log_metrics({"val/dice": step / 10, "dice/nucleus": 1.0}, step)
    run.set_tags({"outcome": "finished"})
    run.log_text("hello", "a/b.txt")
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "x.bin").write_bytes(b"123")
    run.log_folder(tmp_path / "w", "weights")
    run.end("FINISHED")
    (record,) = tracker.find({"kind": "trial", "trial": "3"}, parent=parent.id)
    assert (record.id, record.name, record.status) == (run.id, "child", "FINISHED")
    assert record.params == {"lr": "0.1", "conv": "gin", "none": "None"}
    assert record.metrics == {"val/dice": 0.4, "dice/nucleus": 1.0}
    assert tracker.last_step(run.id, "val/dice") == 4
    assert tracker.last_step(run.id, "nothing") == -1
    assert tracker.read_text(run.id, "a/b.txt") == "hello"
    (tmp_path / "to").mkdir()
    folder = tracker.download(run.id, "weights", tmp_path / "to")
    assert (folder / "x.bin").read_bytes() == b"123"


def test_every_run_is_found_whatever_a_page_holds(tracker, monkeypatch):
    monkeypatch.setattr(mlflow_tracker, "PAGE", 3)
    runs = [tracker.start(f"run-{i}", {"kind": "many"}).id for i in range(7)]
    found = [record.id for record in tracker.find({"kind": "many"})]
    assert sorted(found) == sorted(runs)
    for limit in (1, 3, 4, 9):
        assert [r.id for r in tracker.find({"kind": "many"}, limit=limit)] == found[:limit]


def test_metrics_wait_for_a_batch_and_none_is_lost(tracker):
    run = tracker.start("run", {})
    for step in range(3000):
        run.log_metrics({"m": float(step)}, step)
    run.flush()
    history = tracker._client.get_metric_history(run.id, "m")
    assert sorted(point.step for point in history) == list(range(3000))


def test_data_sets_are_inputs_with_their_digest(tracker):
    data = Dataset("d", ("a", "b"), ("1",), (np.zeros((2, 2, 3), np.uint8),), ("ab12",))
    run = tracker.start("run", {})
    run.log_dataset(data, "train")
    (logged,) = tracker._client.get_run(run.id).inputs.dataset_inputs
    assert (logged.dataset.name, logged.dataset.digest) == ("d", data.digest)
    assert logged.tags[0].value == "train"


def test_a_data_set_that_another_run_brings_at_the_same_moment_is_an_input(tracker, monkeypatch):
    """On PostgreSQL, MLflow refuses the second of two runs that log a new data set at once."""
    log_inputs, refused = MlflowClient.log_inputs, []

    def log(self, *inputs):
        if not refused:
            refused.append(True)
            raise RestException({"error_code": "BAD_REQUEST", "message": "dataset_pk"})
        return log_inputs(self, *inputs)

    monkeypatch.setattr(MlflowClient, "log_inputs", log)
    data = Dataset("e", ("a", "b"), ("1",), (np.zeros((2, 2, 3), np.uint8),), ("cd34",))
    run = tracker.start("run", {})
    run.log_dataset(data, "train")
    assert refused and len(tracker._client.get_run(run.id).inputs.dataset_inputs) == 1


def test_what_several_runs_bring_at_the_same_moment_is_written_by_each(tracker):
    """Trials that start together log the same new data set; SQLite refuses it to all but one."""
    client, registry = tracker._client, Registry(tracker.uri)
    client.create_registered_model("shared")
    client.create_model_version("shared", "nowhere")
    version = registry.version("shared", 1)
    gate = Barrier(THREADS)

    def bring(run):
        for n in range(6):
            data = Dataset(f"d{n}", ("a",), ("1",), (np.zeros((2, 2, 3), np.uint8),), (f"{n:04x}",))
            gate.wait(LATE_S)
            run.log_dataset(data, "train")
            gate.wait(LATE_S)
            tracker.set_experiment_tag(f"t{n}", "x")
            gate.wait(LATE_S)
            registry.point(version, f"a{n}")

    runs = [tracker.start("run", {}) for _ in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(bring, runs))
    assert all(len(client.get_run(run.id).inputs.dataset_inputs) == 6 for run in runs)


def test_a_reopened_run_goes_on(tracker):
    run = tracker.start("run", {})
    run.end("KILLED")
    tracker.reopen(run.id).end("FINISHED")
    assert tracker.get(run.id).status == "FINISHED"


def test_a_class_of_any_name_has_a_metric_and_what_is_undefined_has_none(tracker):
    run = tracker.start("trial", {})
    run.log_metrics({"val/recall/[Malignant] Pro-B": 0.5, "recall/Bénigne (1)": 1, "auc": math.nan})
    run.end("FINISHED")
    found = tracker.get(run.id).metrics
    assert found == {"val/recall/_Malignant_ Pro-B": 0.5, "recall/Bénigne _1_": 1}


def test_a_parameter_that_mlflow_would_cut_is_refused(tracker):
    with pytest.raises(StoreError, match="at most 6000 characters, but 'p' has 7000"):
        tracker.start("run", {}).log_params({"p": "x" * 7000})


def test_an_unreachable_server_is_told_without_its_password(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StoreError, match="http://127.0.0.1:9 gave") as told:
        MlflowTracker("http://me:secret@127.0.0.1:9", "task")
    assert "secret" not in str(told.value)


def test_an_unwritable_store_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        MlflowTracker(f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}", "task")


def test_few_attempts_are_made_to_reach_a_server_that_may_never_have_been_there(monkeypatch):
    monkeypatch.setenv(RETRIES, "6")
    tried = []

    def unreachable(client, task, artifacts):
        tried.append(os.environ[RETRIES])
        raise MlflowException("nobody there")

    monkeypatch.setattr(mlflow_tracker, "_experiment_id", unreachable)
    with pytest.raises(StoreError, match="nobody there"):
        MlflowTracker("http://127.0.0.1:9", "task")
    assert os.environ[RETRIES] == "6", "once it has answered, it is waited for"
    monkeypatch.setenv(RETRIES, "1")
    with pytest.raises(StoreError):
        MlflowTracker("http://127.0.0.1:9", "task")
    assert tried == ["2", "1"]


def test_a_store_that_is_no_database_is_told(tmp_path):
    (tmp_path / "mlflow.db").write_text("this is a letter to somebody else, long enough to read")
    with pytest.raises(StoreError, match="file is not a database"):
        MlflowTracker(f"sqlite:///{tmp_path / 'mlflow.db'}", "task")


def test_a_missing_driver_is_told_without_the_password():
    with pytest.raises(StoreError, match="No module named .pg8000") as told:
        MlflowTracker("postgresql+pg8000://me:secret@127.0.0.1:9/runs", "task")
    assert "secret" not in str(told.value)


def write_runs(uri, barrier):
    barrier.wait()
    tracker = MlflowTracker(uri, "task")
    run = tracker.start("run", {"kind": "crowd"})
    run.log_metrics({"m": 1.0})
    run.end("FINISHED")


def crowd(folder: Path, num: int) -> None:
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hemaml.tracking.mlflow_tracker"])
    barrier = context.Barrier(num)
    workers = [context.Process(target=write_runs, args=(uri, barrier)) for _ in range(num)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * num
    assert len(MlflowTracker(uri, "task").find({"kind": "crowd"})) == num


@pytest.mark.slow
def test_many_processes_meet_an_empty_store(tmp_path):
    crowd(tmp_path, 8)  # `make bench` plays 20 rounds
