"""Populations: who goes on from whom, what is recorded, and how the winner is trained again."""

import json
import sys
import time
from copy import deepcopy
from types import SimpleNamespace

import pytest
import ray
from test_sweep_ray import know_the_stub

import hemaml
from hemaml import training
from hemaml.core import settings
from hemaml.core.checkpoint import load_checkpoint
from hemaml.core.errors import ConfigError
from hemaml.core.experiment import plan_from
from hemaml.core.search import Assigned, Change, Exploit
from hemaml.core.space import Space
from hemaml.course import course_of, log_course, told_values
from hemaml.doctor import examine_sweep
from hemaml.engines.ray_population import Pb2, Pbt
from hemaml.record import open_job, recorded_course, recorded_point
from hemaml.report.gather import read_sweep
from hemaml.tracking.mlflow_tracker import MlflowTracker
from hemaml.trial import key_of, run_trial

EPOCHS = 12
MEMBERS = 4


def plan(stub, *, space=None, params=None, **changes):
    document = deepcopy(stub.EXPERIMENT)
    document["params"] = {"epochs": EPOCHS, **(params or {})}
    how = {
        "engine": "ray",
        "pruner": "pbt",
        "trials": MEMBERS,
        "workers": MEMBERS,
        "confirm_seeds": 1,
    }
    document["sweep"] |= how | changes
    return plan_from(document, space or stub.SPACE)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"engine": "native"}, "`engine: ray` must hold with `pruner: pbt`, but got 'native'"),
        ({"workers": 3}, "`workers` must be at least `trials`, but got 3 for 4"),
        ({"goals": [{"metric": m, "direction": "maximize"} for m in "ab"]}, "several goals"),
        ({"exploit_every": 0}, "greater than or equal to 1"),
    ],
)  # fmt: skip
def test_a_population_that_cannot_be_is_refused(stub, changes, told):
    with pytest.raises(ConfigError, match=told):
        plan(stub, **changes)


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({"width": {"type": "int", "low": 1, "high": 4}}, "may change within a training, x here"),
        ({"x": {"type": "categorical", "choices": [0.1, 0.2]}}, "searches floats"),
        ({"x": {"type": "float", "low": 0, "high": 1, "step": 0.5}}, "floats without `step`"),
    ],
)
def test_a_population_searches_only_what_may_change_on_the_way(stub, space, told):
    with pytest.raises(ConfigError, match=told):
        plan(stub, space=space)


@pytest.fixture
def job(stub):
    """A job below a sweep's run, in this process."""
    job = open_job(plan(stub), sweep_id="s")
    return job.but(parent=job.tracker.start("s", {"kind": "sweep", "sweep": "s"}).id)


def interrupted_at(job, number, x, step):
    """Trains a trial up to a report, as a member that waits for an answer there."""

    def report(index, value):
        if index == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(job, Assigned(number, {"x": x}), report)


def follows(step, donor, x, heard):
    def report(index, value):
        heard.append(index)
        if len(heard) == step + 1:
            raise Exploit(donor, {"x": x})

    return report


def test_a_trial_goes_on_from_another_ones_checkpoint_with_other_values(job, stub):
    interrupted_at(job, 1, 0.3, step=5)
    heard = []
    outcome = run_trial(job, Assigned(0, {"x": 0.9}), follows(1, 1, 0.4, heard))
    assert heard == [0, 1, *range(6, EPOCHS)]
    record = job.tracker.get(outcome.run_id)
    assert record.tags["changes"] == "1"
    assert json.loads(job.tracker.read_text(outcome.run_id, "course.json")) == [
        {"step": -1, "point": {"x": 0.3}, "donor": None},
        {"step": 5, "point": {"x": 0.4}, "donor": 1},
    ]
    assert record.metrics["best_step"] == EPOCHS - 1
    assert outcome.values[0] == pytest.approx(1 - 0.1**2 - 0.1 / EPOCHS, abs=0.01)
    assert record.params["x"] == "0.9"  # as it began; the curve tells the rest
    assert record.metrics["params/x"] == 0.4


def test_what_was_best_before_a_change_of_state_is_forgotten(job):
    interrupted_at(job, 1, 0.9, step=5)
    outcome = run_trial(job, Assigned(0, {"x": 0.3}), follows(8, 1, 0.9, []))
    assert outcome.values[0] < 0.7
    assert job.tracker.get(outcome.run_id).metrics["best_step"] > 5


@pytest.mark.parametrize("donor", ["unknown", "at its end"])
def test_a_trial_that_nobody_can_lend_a_state_stays_as_it_is(job, donor):
    if donor == "at its end":
        interrupted_at(job, 1, 0.3, step=EPOCHS - 1)
    heard = []
    outcome = run_trial(job, Assigned(0, {"x": 0.9}), follows(1, 1, 0.4, heard))
    assert heard == list(range(EPOCHS))
    assert outcome.values[0] < 0.7
    assert "changes" not in job.tracker.get(outcome.run_id).tags


def test_a_trial_killed_after_a_change_goes_on_with_what_it_took_over(job):
    interrupted_at(job, 1, 0.3, step=5)
    heard = []

    def report(index, value):
        heard.append(index)
        if index == 1:
            raise Exploit(1, {"x": 0.4})
        if index == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(job, Assigned(0, {"x": 0.9}), report)
    outcome = run_trial(job, Assigned(0, {"x": 0.9}), lambda index, value: heard.append(index))
    assert heard == [0, 1, 6, 7, 8, 9, 10, 11]
    assert outcome.values[0] > 0.9
    assert job.tracker.get(outcome.run_id).tags["changes"] == "1"


def test_changes_are_followed_and_make_another_trial(job, stub):
    changes = (Change(2, {"x": 0.4}, 1), Change(5, {"x": 0.3}, 2))
    changing = Assigned(0, {"x": 0.9}, seed=7, changes=changes)
    again = job.but(kind="confirm")
    outcome = run_trial(again, changing, lambda index, value: None)
    told = json.loads(job.tracker.read_text(outcome.run_id, "course.json"))
    assert [(c["step"], c["point"]["x"]) for c in told] == [(-1, 0.9), (2, 0.4), (5, 0.3)]
    assert stub.trained == [0.9, 0.4, 0.3]
    assert key_of(again, changing) != key_of(again, Assigned(0, {"x": 0.9}, seed=7))


def test_changes_go_on_after_a_kill(job, stub):
    changing = Assigned(0, {"x": 0.9}, 7, (Change(2, {"x": 0.4}), Change(5, {"x": 0.3})))
    again, heard = job.but(kind="confirm"), []

    def report(index, value):
        heard.append(index)
        if heard == [0, 1, 2, 3]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(again, changing, report)
    outcome = run_trial(again, changing, report)
    assert heard == list(range(EPOCHS))
    told = json.loads(job.tracker.read_text(outcome.run_id, "course.json"))
    assert [(c["step"], c["point"]["x"]) for c in told] == [(-1, 0.9), (2, 0.4), (5, 0.3)]


def kill_once(*arguments):
    """What a test puts in the way of a training: a kill, the first time alone."""
    if not kill_once.done:
        kill_once.done = True
        raise KeyboardInterrupt


@pytest.fixture
def killed(monkeypatch):
    monkeypatch.setattr(kill_once, "done", False, raising=False)
    return kill_once


@pytest.mark.parametrize("moment", ["before it is recorded", "once there is a checkpoint"])
def test_a_kill_beside_a_change_changes_nothing(job, stub, monkeypatch, killed, moment):
    monkeypatch.setattr("hemaml.trial._finished_twin", lambda job, key: None)
    changing = Assigned(0, {"x": 0.9}, 7, (Change(2, {"x": 0.4}), Change(5, {"x": 0.3})))
    again = job.but(kind="confirm")
    whole, heard = {}, {}
    run_trial(again, changing, whole.__setitem__)
    other = again.but(parent=job.tracker.start("other", {"kind": "sweep", "sweep": "other"}).id)
    if moment == "before it is recorded":
        monkeypatch.setattr(training, "log_course", lambda *a: killed() or log_course(*a))
    else:
        stub.on_step.append(lambda epoch: epoch == 3 and killed())
    with pytest.raises(KeyboardInterrupt):
        run_trial(other, changing, heard.__setitem__)
    outcome = run_trial(other, changing, heard.__setitem__)
    assert heard == whole
    record = job.tracker.get(outcome.run_id)
    assert [step for step, _ in values(job.tracker, record)] == [-1, 2, 5]
    assert job.tracker.curve(record.id, "params/x")[1] == [0.9] * 3 + [0.4] * 3 + [0.3] * 6


def test_what_a_trial_took_over_is_recorded_though_it_was_killed_there(job, monkeypatch, killed):
    interrupted_at(job, 1, 0.3, step=5)
    monkeypatch.setattr(training, "log_course", lambda *a: killed() or log_course(*a))
    with pytest.raises(KeyboardInterrupt):
        run_trial(job, Assigned(0, {"x": 0.9}), follows(1, 1, 0.4, []))
    outcome = run_trial(job, Assigned(0, {"x": 0.9}), lambda index, value: None)
    record = job.tracker.get(outcome.run_id)
    assert values(job.tracker, record) == [(-1, {"x": 0.3}), (5, {"x": 0.4})]


def test_a_result_with_changes_is_never_taken_over(job):
    interrupted_at(job, 1, 0.3, step=5)
    changed = run_trial(job, Assigned(0, {"x": 0.9}), follows(1, 1, 0.4, []))
    plain = run_trial(job.but(kind="run"), Assigned(0, {"x": 0.9}), lambda index, value: None)
    assert plain.key == changed.key  # they began alike
    assert not plain.reused_from


def test_members_leave_checkpoints_that_others_can_read_at_their_report(job, stub):
    slow = plan(stub, checkpoint_seconds=3600, exploit_every=3)
    job = open_job(slow, sweep_id="s").but(parent=job.parent)
    seen = {}

    def report(index, value):
        files = list(job.scratch.rglob("checkpoint.pt"))
        seen[index] = load_checkpoint(files[0]).step if files else None

    run_trial(job, Assigned(0, {"x": 0.5}), report)
    assert [seen[i] for i in range(7)] == [None, None, 2, 2, 2, 5, 5]


class Member:
    """A trial as Ray's schedulers see it; keeps what it is told."""

    status = "RUNNING"
    experiment_tag = ""

    def __init__(self, number, point):
        self.config = {"assigned": Assigned(number, point)}
        self.told = []
        self.temporary_state = SimpleNamespace(
            ray_actor=SimpleNamespace(answer=SimpleNamespace(remote=self.told.append))
        )

    def is_finished(self):
        return False


@pytest.mark.parametrize("kind", [Pbt, Pb2])
def test_the_worst_quarter_is_told_to_go_on_from_the_best(kind):
    space = Space.model_validate(
        {
            "lr": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
            "lambda": {"type": "float", "low": 0, "high": 2},
        }
    )
    told = {"time_attr": "step", "metric": "value", "mode": "max"}
    scheduler = kind(space, **told, perturbation_interval=2)
    members = [Member(n, {"lr": 10 ** (-n - 1), "lambda": n / 2}) for n in range(4)]
    others = SimpleNamespace(get_trials=lambda: members, search_alg=None)
    for member in members:
        scheduler.on_trial_add(others, member)
    for step in range(1, 13):
        for number, member in enumerate(members):
            result = {"step": step, "value": step * (10 - number)}
            assert scheduler.on_trial_result(others, member, result) == "CONTINUE"
        if step == 2:
            for member in members:
                member.told.clear()  # by then not all could be compared
    assert not any(member.told for member in members[:3])
    last = members[3].told
    assert len(last) == 5  # at every second step from the fourth on
    assert {exploit.donor for exploit in last} == {0}
    assert len({exploit.point["lr"] for exploit in last}) > 1
    for exploit in last:
        assert space.coerce(exploit.point) == exploit.point


def run_member(job, assigned, report):
    """In a worker: none takes a step before all do, as of trainings that last."""
    know_the_stub()

    def step(epoch):
        begun = job.scratch.parent / "begun"
        begun.mkdir(exist_ok=True)
        (begun / str(assigned.number)).touch()
        late = time.monotonic() + 120
        while len(list(begun.iterdir())) < MEMBERS and time.monotonic() < late:
            time.sleep(0.01)
        time.sleep(0.02)

    sys.modules["stub"].on_step[:] = [step]
    return run_trial(job, assigned, report)


@pytest.mark.slow
def test_a_population_improves_and_its_winner_is_trained_again_as_it_was(
    stub, local_ray, monkeypatch, tmp_path
):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.cloudpickle.register_pickle_by_value(sys.modules[know_the_stub.__module__])
    monkeypatch.setattr(sys.modules["hemaml.sweep"], "run_trial", run_member)
    first = [{"x": x} for x in (0.4, 0.9, 0.95, 1.0)]
    result = hemaml.sweep(plan(stub, first=first, params={"epochs": 24}))
    tracker = MlflowTracker(settings.tracking_uri(), "stub")
    assert {f.what: f.state for f in examine_sweep(result.id) if f.state != "ok"} == {}
    assert [trial.ending for trial in result.searched] == ["finished"] * MEMBERS
    sweep = tracker.get(result.run_id)
    members = tracker.find({"kind": "trial"}, parent=result.run_id)
    changed = [run for run in members if "changes" in run.tags]
    assert changed
    for run in changed:
        told = json.loads(tracker.read_text(run.id, "course.json"))
        steps = [change["step"] for change in told]
        assert steps[0] == -1 and steps == sorted(set(steps))
        assert all(0 <= change["point"]["x"] <= 1 for change in told)
        assert {change["donor"] for change in told[1:]} <= set(range(MEMBERS))
    alone = {int(r.tags["trial"]): 1 - (float(r.params["x"]) - 0.3) ** 2 for r in members}
    assert any(t.values[0] > alone[t.number] + 0.1 for t in result.searched)
    board = {trial.number: trial.point["x"] for trial in result.searched}
    for run in members:  # nobody reads a score beside values that it is not of
        words = "changes" in run.tags
        assert isinstance(board[int(run.tags["trial"])], str) == words
        shown = next(t for t in read_sweep(sweep).trials if t.run_id == run.id)
        assert shown.changed == words and isinstance(shown.point["x"], str) == words
    assert not read_sweep(sweep).settled
    drawn = {path.stem for path in tracker.download(sweep.id, "figures", tmp_path).iterdir()}
    assert drawn == {"history", "learning_curves"}
    with pytest.raises(ConfigError, match="a warm start needs an earlier sweep"):
        hemaml.sweep(plan(stub, pruner="none", engine="native", sampler="tpe"), warm_start=True)
    with pytest.raises(ConfigError, match="changed on the way, as its course.json tells"):
        recorded_point(result.plan, run_id=changed[0].id)
    course = recorded_course(result.plan, run_id=changed[0].id)
    evaluated = hemaml.evaluate(plan(stub), point=course[0].point, changes=course[1:], splits=1)
    (split,) = tracker.find({"kind": "split"}, parent=evaluated.run_id)
    assert values(tracker, split)[1:] == [(c.step, c.point) for c in course[1:]]
    (confirmed,) = tracker.find({"kind": "confirm"}, parent=result.run_id)
    winner = tracker.get(sweep.tags["best_run"])
    assert values(tracker, confirmed) == values(tracker, winner)
    assert sweep.tags["best.x"] == str(told_values(course_of(tracker, winner, {"x": 0.4}))["x"])
    assert sweep.tags["best.x"] in sweep.tags["mlflow.note.content"]


def values(tracker, run):
    return [(change.step, change.point) for change in course_of(tracker, run, {})]


def test_a_course_is_told_where_it_changes():
    course = [Change(-1, {"lr": 0.02, "conv": "gin"}), Change(3, {"lr": 0.0167, "conv": "gin"})]
    assert told_values(course) == {"lr": "0.02, 0.0167 after validation 3", "conv": "gin"}
    assert told_values(course[:1]) == {"lr": 0.02, "conv": "gin"}
    many = [Change(step - 1, {"lr": 0.01 + step / 1000}) for step in range(20)]
    assert told_values(many) == {"lr": "0.01 to 0.029 in 19 changes"}
