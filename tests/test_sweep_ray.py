"""A sweep on Ray leaves the record that a native one leaves."""

import sys
from copy import deepcopy
from pathlib import Path

import pytest
import ray

import hemaml
from hemaml import conclude
from hemaml.core import settings
from hemaml.core.experiment import plan_from
from hemaml.doctor import examine_sweep
from hemaml.tracking.mlflow_tracker import MlflowTracker
from hemaml.trial import run_trial

TESTS = str(Path(__file__).parent)


def know_the_stub():
    """In a worker, as this process does."""
    sys.path.insert(0, TESTS)
    import stub

    import hemaml.core.objective

    sys.modules["hemaml.objectives.stub.stub"] = stub
    hemaml.core.objective.objective_names = lambda: ["stub.stub"]


def run_stub_trial(job, assigned, report):
    know_the_stub()
    return run_trial(job, assigned, report)


@pytest.fixture
def ray_stub(stub, local_ray, monkeypatch):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(sys.modules["hemaml.sweep"], "run_trial", run_stub_trial)
    monkeypatch.setattr(conclude, "study_figures", lambda study, plan: [])
    return stub


def run_without_files(job, assigned, report):
    """In a worker that sees no file of the data set."""
    know_the_stub()

    def read(section):
        raise AssertionError("read again")

    object.__setattr__(job.plan.objective.task, "read", read)
    assert not job.data.images[0].flags.writeable  # mapped from the node's one copy
    assert not job.folds[0].train.images[0].flags.writeable
    return run_trial(job, assigned, report)


def plan(stub, **changes):
    document = deepcopy(stub.EXPERIMENT)
    document["sweep"] |= {"confirm_seeds": 1, **changes}
    space = {**stub.SPACE, "mode": {"type": "categorical", "choices": ["fine", "nan"]}}
    return plan_from(document, space)


def record(result):
    """What does not depend on when and by whom it was written."""
    tracker = MlflowTracker(settings.tracking_uri(), "stub")
    runs = [tracker.get(result.run_id), *tracker.find({}, parent=result.run_id)]
    changing = {"peak_memory_mb", "ms_per_image", "train_s"}
    return [
        (
            run.status,
            run.params,
            set(run.tags) - {"reused_from", "mlflow.user"},
            {name for name in run.metrics if name not in changing},
            run.tags["outcome"],
            run.tags.get("trial"),
        )
        for run in runs
    ]


def test_both_engines_leave_the_same_record(ray_stub, monkeypatch, tmp_path):
    records, points = [], []
    for engine in ("native", "ray"):
        store = tmp_path / engine
        store.mkdir()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/mlflow.db")
        monkeypatch.setenv("HEMAML_STUDY_STORAGE", str(store / "study.journal"))
        result = hemaml.sweep(plan(ray_stub, engine=engine))
        records.append(record(result))
        points.append([trial.point for trial in result.searched])
        findings = {found.what: found.state for found in examine_sweep(result.id)}
        assert set(findings.values()) == {"ok"}, findings
    assert points[0] == points[1]
    assert records[0] == records[1]
    assert {outcome for *_, outcome, _ in records[0]} == {"finished", "diverged"}


def test_a_data_set_in_memory_is_put_once_a_node_and_read_by_no_worker(ray_stub, monkeypatch):
    monkeypatch.setattr(sys.modules["hemaml.sweep"], "run_trial", run_without_files)
    result = hemaml.sweep(plan(ray_stub, engine="ray", workers=2, trials=4))
    assert {trial.ending for trial in result.searched} <= {"finished", "diverged"}
    assert len(result.searched) == 4
