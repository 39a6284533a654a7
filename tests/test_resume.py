"""Who may go on with a sweep, with what, and what the record says until then."""

import subprocess
import sys
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import pytest

import hemaml
from hemaml import conclude, overview
from hemaml.core import settings
from hemaml.core.errors import ConfigError, StoreError
from hemaml.core.experiment import plan_from
from hemaml.core.space import Space
from hemaml.doctor import examine_sweep
from hemaml.engines.moving import study_names
from hemaml.sweep import open_sweep, reopen_sweep
from hemaml.tracking.mlflow_run import MlflowRun
from hemaml.tracking.mlflow_tracker import MlflowTracker

STUB = Path("experiments/stub/stub.yaml")
NAMED = """
import sys
from hemaml.core.provenance import this_process
print(this_process(), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    """What every sweep draws is looked at elsewhere."""
    monkeypatch.setattr(conclude, "study_figures", lambda study, plan: [])


def plan(space=None, **sweep):
    import stub

    document = deepcopy(stub.EXPERIMENT)
    document["sweep"] |= {"trials": 2, "confirm_seeds": 0, **sweep}
    return plan_from(document, space or stub.SPACE)


def tracker():
    return MlflowTracker(settings.tracking_uri(), "stub")


def written_by(opened, process):
    tracker().amend(opened.run.id).set_tags({"process": process})


@contextmanager
def another_process():
    """The name of a process that lives until the end of the block."""
    with subprocess.Popen(
        [sys.executable, "-c", NAMED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process.stdout.readline().strip()


def test_a_sweep_of_a_living_process_is_left_alone_and_of_a_dead_one_goes_on_at_once(stub):
    """The other one in a folder of its own: this one's has no lock of it."""
    opened = open_sweep(plan())
    with another_process() as process:
        written_by(opened, process)
        told = f"is being run by '{process}'.*hemaml doctor --sweep {opened.id} --repair"
        for asked in (opened.id, None):
            with pytest.raises(ConfigError, match=told):
                reopen_sweep(asked, experiment=STUB)
        assert [f.state for f in examine_sweep(opened.id) if process in f.found] == ["note"]
        assert tracker().get(opened.run.id).tags["process"] == process
    assert len(reopen_sweep(None, experiment=STUB).search().searched) == 2


def test_a_sweep_of_another_machine_is_no_ones_until_a_human_has_ended_it(stub):
    mine, other = open_sweep(plan()), open_sweep(plan())
    written_by(other, "elsewhere 7 1753264000.0")
    assert reopen_sweep(None, experiment=STUB).id == mine.id, "not the latest, which is elsewhere"
    with pytest.raises(ConfigError, match="is being run by 'elsewhere 7"):
        hemaml.resume(other.id)
    assert examine_sweep(other.id, repair=True)[0].state == "repaired"
    assert tracker().get(other.run.id).tags["reason"] == "its process ended before it did"
    assert hemaml.resume(other.id).run_id == other.run.id
    record = tracker().get(other.run.id)
    assert (record.status, record.tags["reason"]) == ("FINISHED", "")


def test_what_a_resume_was_given_is_kept_for_the_next(stub):
    first = hemaml.sweep(plan())
    more = ["sweep.trials=5", "sweep.sampler=tpe", "sweep.pruner=median"]

    def ctrl_c(event):
        if event.kind == "started" and event.number == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hemaml.resume(first.id, overrides=more, watch=ctrl_c)
    tags = tracker().get(first.run_id).tags
    assert (tags["outcome"], tags["reason"]) == ("interrupted", "its process was told to end")
    assert (tags["engine"], tags["sampler"], tags["pruner"]) == ("native", "tpe", "median")
    again = hemaml.resume(first.id)
    assert len(again.searched) == 5 and again.plan.experiment.sweep.sampler == "tpe"


@pytest.mark.parametrize("write", ["log_dataset", "log_params"])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (KeyboardInterrupt(), "its process was told to end"),
        (
            StoreError("a store must answer, but it is gone."),
            "a store must answer, but it is gone.",
        ),
        (ZeroDivisionError("password"), "ZeroDivisionError"),
    ],
)
def test_a_run_that_did_not_come_to_train_says_why(stub, monkeypatch, write, fault, reason):
    def fails(*arguments):
        raise fault

    with monkeypatch.context() as patch, pytest.raises(type(fault)):
        patch.setattr(MlflowRun, write, fails)
        hemaml.run(plan())
    (run,) = tracker().find({"kind": "run"})
    assert (run.status, run.tags["outcome"], run.tags["reason"]) == (
        "KILLED",
        "interrupted",
        reason,
    )


@pytest.mark.parametrize(
    ("kind", "start"),
    [
        ("sweep", lambda: hemaml.sweep(plan())),
        ("evaluation", lambda: hemaml.evaluate(plan(), splits=2)),
    ],
)
def test_what_could_not_be_described_does_not_stay_running(stub, monkeypatch, kind, start):
    def away(tracker):
        raise StoreError("a store must answer, but it is gone.")

    with monkeypatch.context() as patch, pytest.raises(StoreError, match="a store must"):
        patch.setattr(overview, "description", away)
        start()
    (record,) = tracker().find({"kind": kind})
    assert (record.status, record.tags["outcome"]) == ("KILLED", "interrupted")
    assert record.tags["reason"] == "a store must answer, but it is gone."


def test_a_sweep_that_was_killed_before_its_study_was_made_lends_nothing(stub):
    open_sweep(plan())
    with pytest.raises(ConfigError, match="needs an earlier sweep"):
        open_sweep(plan(sampler="tpe"), warm_start=True)
    assert len(tracker().find({"kind": "sweep"})) == 1
    finished = hemaml.sweep(plan())
    warm = open_sweep(plan(sampler="tpe"), warm_start=True)
    assert warm.study.warm_start == (tracker().get(finished.run_id).tags["study"],)
    assert len(warm.search().searched) == 2


def test_names_of_any_number_of_earlier_studies_outlast_a_kill(stub, monkeypatch):
    earlier = tuple(f"stub-20251128-112233-{number:04x}/{number:032x}" for number in range(200))
    monkeypatch.setattr(sys.modules["hemaml.sweep"], "_earlier_studies", lambda job: earlier)
    opened = open_sweep(plan(sampler="tpe"), warm_start=True)
    tags = tracker().get(opened.run.id).tags
    assert max(map(len, tags.values())) <= 8000, "a server's tables take no longer ones"
    assert reopen_sweep(opened.id).study.warm_start == earlier


def test_a_later_hemaml_that_digests_spaces_otherwise_finds_the_study_of_a_sweep(stub, monkeypatch):
    first = hemaml.sweep(plan())
    monkeypatch.setattr(Space, "digest", "of another kind")
    more = hemaml.resume(first.id, overrides=["sweep.trials=3"])
    assert len(more.searched) == 3 and {f.state for f in examine_sweep(first.id)} == {"ok"}
    assert study_names(settings.study_storage()) == {tracker().get(first.run_id).tags["study"]}


def test_a_kept_model_is_found_among_any_number_of_runs_that_kept_none(stub):
    run = tracker().get(hemaml.run(plan()).run_id)
    tracker()._client.delete_run(run.id)
    tags = {"kind": "trial", "trial_key": run.tags["trial_key"], "outcome": "finished"}
    for _ in range(20):
        tracker().start("taken over", {**tags, "reused_from": "another"})
    hemaml.run(plan())
    hemaml.run(plan())
    assert len(stub.trained) == 2


def test_a_resume_may_raise_the_limit_of_parameters_but_not_lower_it(stub):
    """The best trial so far may be larger than a lower one."""
    result = hemaml.sweep(plan(max_params=60))
    for limit in (59, 45):
        with pytest.raises(ConfigError, match=rf"which was 60, but got {limit}: .* new sweep"):
            hemaml.resume(result.id, overrides=[f"sweep.max_params={limit}"])
    hemaml.resume(result.id, overrides=["sweep.max_params=80"])
    with pytest.raises(ConfigError, match="which was 80, but got 60"):
        hemaml.resume(result.id, overrides=["sweep.max_params=60"])
