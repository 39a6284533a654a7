"""Sweeps from outside: a real SQLite store, a real journal, an objective that costs nothing."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

import hemaml
from hemaml import conclude, training
from hemaml.core import settings
from hemaml.core.errors import ConfigError, DataError, Diverged, StoreError
from hemaml.core.experiment import plan_from
from hemaml.core.objective import Step
from hemaml.data.problems import BadFile
from hemaml.doctor import examine_sweep
from hemaml.engines import study_figures
from hemaml.engines.ledger import Ledger
from hemaml.registering import candidate, registered_name
from hemaml.report.gather import read_sweep
from hemaml.sweep import open_sweep, reopen_sweep
from hemaml.tracking.mlflow_tracker import MlflowTracker
from hemaml.trial import run_trial

STUB = Path("experiments/stub/stub.yaml")


@pytest.fixture(autouse=True)
def _figures(request, monkeypatch):
    """Drawing a study takes half of a stub's sweep: only tests marked so look at the figures."""
    if not request.node.get_closest_marker("figures"):
        monkeypatch.setattr(conclude, "study_figures", lambda study, plan: [])


def plan(space=None, **sweep_and_params):
    import stub

    document = deepcopy(stub.EXPERIMENT)
    for name, value in sweep_and_params.items():
        section = "params" if name in stub.Params.model_fields else "sweep"
        document[section][name] = value
    return plan_from(document, space or stub.SPACE)


def tracker():
    return MlflowTracker(settings.tracking_uri(), "stub")


def children(result, kind):
    return tracker().find({"kind": kind}, parent=result.run_id)


def split_folds(result):
    experiment, task = result.plan.experiment, result.plan.objective.task
    return task.folds(task.held_out(task.read(experiment.data))[0], experiment.split)


def agree(sweep_id):
    return {f.what: f.found for f in examine_sweep(sweep_id) if f.state == "wrong"} == {}


def test_what_figures_measure_is_a_score_of_each_model_that_is_kept(stub, monkeypatch):
    def measured(names, model, data, device):
        assert names == stub.task.figures + stub.objective.figures
        return {"explain/insertion": model.x + len(data), "explain/deletion": float("nan")}

    monkeypatch.setattr(training, "measurements", measured)
    result = hemaml.sweep(plan())
    confirms = children(result, "confirm")
    values = [run.metrics["explain/insertion"] for run in confirms]
    num = len(split_folds(result)[0].val)
    assert values == [pytest.approx(result.best["x"] + num)] * 2
    parent = tracker().get(result.run_id).metrics
    assert parent["explain/insertion"] == pytest.approx(values[0])
    assert parent["explain/insertion_std"] == pytest.approx(0)
    assert not any(name.startswith("explain/deletion") for name in parent)
    assert not any("explain/insertion" in run.metrics for run in children(result, "trial"))


def test_a_sweep_records_trials_winner_confirmation_and_answer(stub):
    result = hemaml.sweep(plan())
    trials, confirms = children(result, "trial"), children(result, "confirm")
    assert len(trials) == 6 and len(confirms) == 2
    assert {run.status for run in [*trials, *confirms]} == {"FINISHED"}
    assert [run.name for run in trials] == [f"stub-trial-{i:04d}" for i in range(6)]
    for run in trials:
        assert run.tags["outcome"] == "finished" and run.tags["split.leaky"] == "false"
        assert set(run.params) == {"x", "width", "epochs", "mode"}
        assert set(run.metrics) >= {
            "score", "val/score", "train/loss", "params_total", "params_trainable", "model_bytes",
            "epoch_s", "peak_memory_mb", "ms_per_image",
        }  # fmt: skip
    frame = result.trials()
    assert list(frame["trial"]) == list(range(6))
    winner = frame.loc[frame["score"].idxmax()]
    assert result.best == {"x": winner["x"]}
    assert abs(winner["x"] - 0.3) == min(abs(frame["x"] - 0.3))
    parent = tracker().get(result.run_id)
    mean, deviation = result.confirmed["score"]
    scores = [run.metrics["score"] for run in confirms]
    assert mean == pytest.approx(sum(scores) / 2) and deviation > 0
    assert parent.metrics["score"] == mean and parent.metrics["score_std"] == deviation
    assert parent.tags["best.x"] == str(winner["x"])
    assert parent.tags["best_run"] == winner["run_id"]
    assert "Does it work?" in parent.tags["mlflow.note.content"]
    assert "Nobody 2026" in parent.tags["mlflow.note.content"]
    assert agree(result.id)


@pytest.mark.figures
def test_the_parent_run_has_what_is_needed_to_repeat_it(stub):
    result = hemaml.sweep(plan(trials=2))
    split = json.loads(tracker().read_text(result.run_id, "split.json"))
    parts = split["splits"][0]
    rest, held = stub.task.held_out(stub.read({"count": 24}))
    assert sorted(parts["train"]["ids"] + parts["val"]["ids"]) == sorted(rest.ids)
    assert not set(held.ids) & set(parts["train"]["ids"] + parts["val"]["ids"])
    environment = json.loads(tracker().read_text(result.run_id, "environment.json"))
    assert {"python", "torch", "optuna", "mlflow"} <= set(environment)
    for name in ("experiment.yaml", "search_space.yaml"):
        assert tracker().read_text(result.run_id, name)
    for name in ("history", "parallel_coordinates", "importance", "learning_curves"):
        assert tracker().has_artifact(result.run_id, f"figures/{name}.png")
    page = tracker().read_text(result.run_id, "report.html")
    assert "Plotly.newPlot" in page and 'src="http' not in page  # works offline


@pytest.mark.parametrize(
    ("mode", "ending", "status"),
    [("nan", "diverged", "FAILED"), ("oom", "out_of_memory", "FAILED"),
     ("boom", "failed", "FAILED")],
)  # fmt: skip
def test_each_way_to_fail_has_its_own_record_and_spares_the_rest(stub, mode, ending, status):
    space = {**stub.SPACE, "mode": {"type": "categorical", "choices": ["fine", mode]}}
    result = hemaml.sweep(plan(space, trials=8))
    runs = {run.tags["trial"]: run for run in children(result, "trial")}
    for trial in result.searched:
        run = runs[str(trial.number)]
        wanted = "finished" if trial.point["mode"] == "fine" else ending
        assert trial.ending == run.tags["outcome"] == wanted
        assert run.status == ("FINISHED" if wanted == "finished" else status)
        assert bool(run.tags.get("reason")) == (wanted != "finished")
    assert ending in {trial.ending for trial in result.searched}
    if mode == "boom":
        failed = next(run for run in runs.values() if run.status == "FAILED")
        assert "something broke" in tracker().read_text(failed.id, "traceback.txt")
    assert agree(result.id)


def test_an_error_of_the_users_is_told_without_a_traceback(stub, monkeypatch, caplog):
    def fit(params, fold, context):
        raise ConfigError("weights must be there, but they are not. Get them.")
        yield

    monkeypatch.setattr(stub, "objective", replace(stub.objective, fit=fit))
    result = hemaml.run(plan())
    told = "weights must be there, but they are not. Get them."
    assert (result.ending, result.reason) == ("failed", told)
    assert not tracker().has_artifact(result.run_id, "traceback.txt")
    assert not [record for record in caplog.records if record.exc_info]


def test_a_sweep_without_a_winner_says_so(stub):
    result = hemaml.sweep(plan(mode="nan", trials=2))
    assert result.best is None and not result.confirmed
    parent = tracker().get(result.run_id)
    assert parent.status == "FAILED" and parent.tags["outcome"] == "no_winner"


def test_pruned_trials_are_recorded_and_never_win(stub):
    result = hemaml.sweep(plan(trials=20, epochs=20, pruner="median"))
    pruned = [trial for trial in result.searched if trial.ending == "pruned"]
    assert pruned and not any(trial.best for trial in pruned)
    runs = [run for run in children(result, "trial") if run.tags["outcome"] == "pruned"]
    assert len(runs) == len(pruned) and {run.status for run in runs} == {"KILLED"}
    assert all("score" not in run.metrics and "val/score" in run.metrics for run in runs)


def test_models_over_budget_are_rejected_before_training(stub):
    space = {"width": {"type": "int", "low": 1, "high": 10}}
    result = hemaml.sweep(plan(space, trials=12, max_params=50, x=0.3))
    rejected = [trial for trial in result.searched if trial.ending == "over_budget"]
    assert rejected and all(trial.point["width"] > 5 for trial in rejected)
    assert all("above `max_params: 50`" in trial.reason for trial in rejected)
    assert result.best["width"] <= 5
    finished = sum(t.ending == "finished" for t in result.searched)
    assert len(stub.trained) <= finished + 2


def test_equal_points_are_trained_once(stub):
    space = {"width": {"type": "categorical", "choices": [1, 2]}}
    result = hemaml.sweep(plan(space, trials=8, confirm_seeds=0))
    assert len(stub.trained) == 2
    runs = children(result, "trial")
    assert len(runs) == 8
    originals = {run.id for run in runs if "reused_from" not in run.tags}
    assert len(originals) == 2
    assert {run.tags["reused_from"] for run in runs if "reused_from" in run.tags} == originals
    again = hemaml.sweep(plan(space, trials=8, confirm_seeds=0))
    assert len(stub.trained) == 2 and again.values == result.values


def test_another_seed_or_data_set_is_another_trial(stub):
    hemaml.run(plan())
    hemaml.run(plan())
    assert len(stub.trained) == 1
    hemaml.run(plan(), seed=5)
    document = {**stub.EXPERIMENT, "data": {"count": 30}}
    hemaml.run(plan_from(document, stub.SPACE))
    assert len(stub.trained) == 3


class Killed(BaseException):
    """Stands for whatever ends a process in the middle of a step."""


def kill_at(count):
    seen = []

    def step(epoch):
        seen.append(epoch)
        if len(seen) == count:
            raise Killed

    return step


def test_resume_continues_the_interrupted_trial_and_duplicates_nothing(stub):
    stub.on_step.append(kill_at(15))  # trial 3, epoch 2
    opened = open_sweep(plan())
    with pytest.raises(Killed):
        opened.search()
    runs = tracker().find({"kind": "trial"}, parent=opened.run.id)
    assert [run.tags["outcome"] for run in runs] == ["finished"] * 3 + ["interrupted"]
    statuses = {run.status for run in tracker().find({}, parent=opened.run.id)}
    assert statuses == {"FINISHED", "KILLED"}
    assert tracker().get(opened.run.id).status == "KILLED"
    stub.on_step.clear()
    steps = []
    stub.on_step.append(steps.append)
    result = reopen_sweep(None, experiment=STUB).search()
    assert steps[:2] == [2, 3]  # from the last checkpoint, not from the start
    after = children(result, "trial")
    assert [run.id for run in after[:4]] == [run.id for run in runs]
    assert [run.tags["outcome"] for run in after] == ["finished"] * 6
    history = tracker()._client.get_metric_history(runs[3].id, "val/score")
    assert sorted(point.step for point in history) == [0, 1, 2, 3]
    assert tracker().get(result.run_id).status == "FINISHED"
    assert agree(result.id)


def test_a_trial_killed_before_its_first_checkpoint_logs_each_step_once(stub):
    stub.on_step.append(kill_at(3))
    opened = open_sweep(plan(checkpoint_seconds=1000, trials=1, confirm_seeds=0))
    with pytest.raises(Killed):
        opened.search()
    stub.on_step.clear()
    result = reopen_sweep(opened.id).search()
    (run,) = children(result, "trial")
    history = tracker()._client.get_metric_history(run.id, "val/score")
    assert sorted(point.step for point in history) == [0, 1, 2, 3]
    assert run.tags["outcome"] == "finished" and run.tags["reason"] == ""


@pytest.mark.parametrize("folds", [1, 3])
def test_a_trial_killed_after_its_last_step_is_finished_not_diverged(stub, monkeypatch, folds):
    import hemaml.training

    def dies(model, fold):
        raise Killed

    document = {**deepcopy(stub.EXPERIMENT), "split": {"folds": folds}}
    opened = open_sweep(plan_from(document, stub.SPACE))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(hemaml.training, "ms_per_image", dies)
        opened.search()
    everything = tracker().find({})
    assert not [run for run in everything if run.status == "RUNNING"]  # folds included
    trained = len(stub.trained)
    result = reopen_sweep(opened.id).search()
    assert [trial.ending for trial in result.searched] == ["finished"] * 6
    assert len(stub.trained) == trained + folds * 5 + folds * 2 + folds  # trial 0: no step again
    assert not [run for run in tracker().find({}) if run.status == "RUNNING"]
    assert agree(result.id)


def test_a_kill_between_outcome_and_status_keeps_the_outcome(stub, monkeypatch):
    from hemaml.tracking.mlflow_run import MlflowRun

    opened = open_sweep(plan(confirm_seeds=0))
    end, ended = MlflowRun.end, []

    def dies(self, status):
        ended.append(status)
        if len(ended) == 3:
            raise Killed
        end(self, status)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(MlflowRun, "end", dies)
        opened.search()
    result = reopen_sweep(opened.id).search()
    assert len(stub.trained) == 6  # the third was finished already
    assert {run.tags["outcome"] for run in children(result, "trial")} == {"finished"}
    assert agree(result.id)


def test_a_goal_that_is_not_finite_is_a_divergence(stub, monkeypatch):
    import hemaml.training

    values = iter([1.0, float("nan"), 2.0, 1.0, 1.0])
    monkeypatch.setattr(hemaml.training, "ms_per_image", lambda model, images: next(values))
    goals = [{"metric": "ms_per_image", "direction": "minimize"}]
    result = hemaml.sweep(plan(goals=goals, trials=3, confirm_seeds=2))
    assert [t.ending for t in result.searched] == ["finished", "diverged", "finished"]
    assert "ms_per_image must be finite" in result.searched[1].reason
    assert agree(result.id)


@pytest.mark.parametrize("judge", [{"pruner": "median"}, {"sampler": "bohb"}])
def test_what_is_known_at_the_end_alone_stops_no_trial_on_the_way(stub, judge):
    goals = [{"metric": "ms_per_image", "direction": "minimize"}]
    with pytest.raises(ConfigError, match="'ms_per_image' is known at a trial's end alone"):
        plan(goals=goals, **judge)


def test_the_native_engine_refuses_a_limit_that_it_cannot_keep(stub):
    with pytest.raises(ConfigError, match="`engine: ray` must hold with `trial_hours`"):
        plan(trial_hours=1)


def test_a_file_that_cannot_be_read_ends_the_sweep_which_goes_on_once_it_can(stub):
    def unplugged(epoch):
        if len(stub.trained) == 3:
            raise BadFile("a.png", "an image must be readable", "it is not", "Plug the disk in.")

    stub.on_step.append(unplugged)
    with pytest.raises(DataError, match="Plug the disk in"):
        hemaml.sweep(plan())
    (parent,) = tracker().find({"kind": "sweep"})
    stub.on_step.clear()
    result = hemaml.resume(parent.tags["sweep"])
    assert [trial.ending for trial in result.searched] == ["finished"] * 6
    assert agree(result.id)


def test_pictures_of_kept_models_do_not_move_the_end_of_their_trials(stub):
    result = hemaml.sweep(plan(keep_models=True, trials=2))
    client = MlflowClient(settings.tracking_uri())
    confirmed = [client.get_run(run.id).info.start_time for run in children(result, "confirm")]
    for run in children(result, "trial"):
        assert run.tags["pictured"] == "true" and run.status == "FINISHED"
        assert client.get_run(run.id).info.end_time <= min(confirmed)


@pytest.mark.figures
def test_figures_of_a_warm_started_sweep_show_its_own_trials(stub, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        study_figures, "_figures", lambda study, names, num: drawn.append(study.trials) or []
    )
    hemaml.sweep(plan(sampler="tpe"))
    second = hemaml.sweep(plan(sampler="tpe", first=[{"x": 0.123}]), warm_start=True)
    assert [len(trials) for trials in drawn] == [6, 6]
    assert {trial.params["x"] for trial in drawn[1]} == {t.point["x"] for t in second.searched}


def test_resume_refuses_other_goals(stub):
    result = hemaml.sweep(plan())
    with pytest.raises(ConfigError, match="keeps its goals"):
        hemaml.resume(
            result.id, overrides=["sweep.goals=[{metric: params_total, direction: minimize}]"]
        )


@pytest.mark.parametrize("last", [2, 3, 4])
def test_a_fold_that_has_ended_does_not_keep_the_others_from_going_on_after_a_kill(
    stub, monkeypatch, last
):
    """One fold's patience runs out at a validation, right after which the process is killed."""

    def fit(params, fold, context):
        early = fold.val.ids == first.val.ids
        for epoch in range(context.state["epoch"] if context.state else 0, last if early else 6):
            for call in stub.on_step:
                call((early, epoch))
            yield Step(
                epoch, {"score": 0.5 + epoch / 10}, stub.StubModel(params.x),
                lambda epoch=epoch: {"epoch": epoch + 1},
            )  # fmt: skip

    def kill(at):
        if at == (False, last):
            raise KeyboardInterrupt

    document = plan(trials=1, confirm_seeds=0).experiment.document() | {"split": {"folds": 2}}
    split = plan_from(document, stub.SPACE).experiment.split
    first, _ = stub.task.folds(stub.task.held_out(stub.read({"count": 24}))[0], split)
    monkeypatch.setattr(stub, "objective", replace(stub.objective, fit=fit))
    asked = plan_from(document, stub.SPACE)
    stub.on_step.append(kill)
    with pytest.raises(KeyboardInterrupt):
        hemaml.sweep(asked)
    stub.on_step.clear()
    (parent,) = tracker().find({"kind": "sweep"})
    result = hemaml.resume(parent.tags["sweep"])
    (trial,) = result.searched
    assert trial.ending == "finished", trial.reason
    assert agree(result.id)


@pytest.fixture
def seeds_fail(stub, monkeypatch):
    """Has every training diverge that confirms a winner, until it is called with False."""
    real, broken = stub.objective.fit, []

    def fit(params, fold, context):
        if broken:
            raise Diverged("the loss must be finite")
        return real(params, fold, context)

    def confirming(job, *rest):
        broken.append(1)
        try:
            return run_trial(job, *rest)
        finally:
            broken.clear()

    def switch(on=True):
        monkeypatch.setattr(conclude, "run_trial", confirming if on else run_trial)

    monkeypatch.setattr(stub, "objective", replace(stub.objective, fit=fit))
    return switch


def test_seeds_that_did_not_finish_are_told_until_they_have(stub, seeds_fail):
    seeds_fail()
    result = hemaml.sweep(plan())
    assert not result.confirmed
    assert tracker().get(result.run_id).tags["unconfirmed"] == "2 of 2 seeds did not finish"
    seeds_fail(False)
    again = hemaml.resume(result.id)
    assert again.confirmed and tracker().get(again.run_id).tags["unconfirmed"] == ""


def test_scores_of_a_beaten_winner_do_not_stand_beside_one_without_any(stub, seeds_fail):
    first = hemaml.sweep(plan(trials=2))
    kept = tracker().get(first.run_id).metrics
    assert kept["score"] == first.confirmed["score"][0]
    seeds_fail()
    more = hemaml.resume(first.id, overrides=["sweep.trials=25"])
    assert more.values > first.values and not more.confirmed
    record = tracker().get(more.run_id)
    assert record.metrics.keys() == {"trials/finished"} < kept.keys()
    told = read_sweep(record)
    assert told.by_class == told.by_group == {}, "those of the winner that it has beaten"
    with pytest.raises(ConfigError, match="logged none"):
        candidate(registered_name(first.plan, "stub"), sweep=more.id)


def test_resume_refuses_other_data(stub, monkeypatch):
    result = hemaml.sweep(plan())
    read = stub.task.read
    changed = replace(stub.task, read=lambda section: read({"count": 23}))
    monkeypatch.setattr(stub, "objective", replace(stub.objective, task=changed))
    with pytest.raises(ConfigError, match="goes on with the data it began on"):
        hemaml.resume(result.id)


def test_a_better_winner_after_a_resume_replaces_the_confirmation(stub):
    first = hemaml.sweep(plan(trials=2))
    more = hemaml.resume(first.id, overrides=["sweep.trials=25"])
    assert more.values > first.values
    confirms = children(more, "confirm")
    assert len(confirms) == 2 and {run.params["x"] for run in confirms} == {str(more.best["x"])}
    assert len(children(more, "superseded")) == 2


def test_an_interrupted_and_resumed_trial_equals_an_uninterrupted_one(stub):
    whole = hemaml.sweep(plan(confirm_seeds=0))
    values = [trial.values for trial in whole.searched]
    for run in tracker().find({"kind": "trial"}):  # so that nothing is reused
        tracker()._client.delete_run(run.id)
    stub.on_step.append(kill_at(10))
    with pytest.raises(Killed):
        open_sweep(plan(confirm_seeds=0)).search()
    stub.on_step.clear()
    resumed = reopen_sweep(None, experiment=STUB).search()
    assert [trial.values for trial in resumed.searched][:3] == values[:3]


def test_a_run_that_finished_unheard_is_not_trained_again(stub, monkeypatch):
    """The process died between the end of the run and the study hearing of it."""
    opened = open_sweep(plan())
    ended = []

    def watch(event):
        if event.kind == "ended":
            ended.append(event)

    tell = Ledger.tell

    def dies(self, number, outcome):
        if number == 2:
            raise Killed
        tell(self, number, outcome)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Ledger, "tell", dies)
        opened.search(watch)
    assert len(ended) == 2 and len(stub.trained) == 3
    result = reopen_sweep(opened.id).search()
    assert len(stub.trained) == 6 + 2  # three more trials, two confirmations; trial 2 not again
    assert [trial.ending for trial in result.searched] == ["finished"] * 6
    assert agree(result.id)


def test_resume_of_a_finished_sweep_adds_trials(stub):
    first = hemaml.sweep(plan())
    more = hemaml.resume(first.id, overrides=["sweep.trials=9"])
    assert [t.point for t in more.searched[:6]] == [t.point for t in first.searched]
    assert len(more.searched) == 9 and more.run_id == first.run_id


def test_resume_says_what_it_cannot_do(stub):
    with pytest.raises(ConfigError, match="has none"):
        reopen_sweep(None, experiment=STUB)
    result = hemaml.sweep(plan())
    with pytest.raises(ConfigError, match=r"only `sweep\.\*` may be set"):
        hemaml.resume(result.id, overrides=["params.epochs=9"])
    with pytest.raises(ConfigError, match=f"known: {result.id}"):
        hemaml.resume("stub-1")


def test_a_sweep_is_run_by_one_process_at_a_time(stub):
    opened = open_sweep(plan())

    def second(event):
        if event.kind == "started" and event.number == 1:
            with pytest.raises(ConfigError, match="is being run by another"):
                reopen_sweep(opened.id)

    opened.search(second)


def test_warm_start_learns_from_sweeps_of_the_same_question_only(stub):
    with pytest.raises(ConfigError, match="needs a sampler that learns, but `sampler: random`"):
        hemaml.sweep(plan(), warm_start=True)
    with pytest.raises(ConfigError, match="needs an earlier sweep"):
        hemaml.sweep(plan(sampler="tpe"), warm_start=True)
    hemaml.sweep(plan())
    result = hemaml.sweep(plan(sampler="tpe"), warm_start=True)
    assert len(result.searched) == 6 and agree(result.id)
    own = result.trials()
    assert result.best == {"x": own.loc[own["score"].idxmax(), "x"]}  # never a lent one
    other = {"x": {"type": "float", "low": 0, "high": 0.9}}
    with pytest.raises(ConfigError, match="needs an earlier sweep"):
        hemaml.sweep(plan(other, sampler="tpe"), warm_start=True)


@pytest.mark.figures
def test_several_goals_give_a_front(stub):
    goals = [{"metric": "score", "direction": "maximize"},
             {"metric": "params_total", "direction": "minimize"}]  # fmt: skip
    space = {**stub.SPACE, "width": {"type": "int", "low": 1, "high": 9}}
    result = hemaml.sweep(plan(space, trials=15, goals=goals, sampler="nsga2"))
    front = [trial.values for trial in result.searched if trial.best]
    for score, size in front:
        assert not any(s >= score and n <= size and (s, n) != (score, size) for s, n in front)
    assert result.values[0] == max(score for score, _ in front)
    assert tracker().has_artifact(result.run_id, "figures/pareto.png")
    assert "Pareto front" in tracker().read_text(result.run_id, "report.html")


def test_a_goal_that_no_score_has_is_an_error_with_the_known_ones(stub):
    goals = [{"metric": "scoer", "direction": "maximize"}]
    with pytest.raises(ConfigError, match="unknown metric to optimise 'scoer'; known: score"):
        hemaml.sweep(plan(goals=goals))
    assert not [run for run in tracker().find({}) if run.status == "RUNNING"]


def test_a_gate_that_no_score_has_is_an_error_at_the_first_validation(stub):
    wrong = deepcopy(stub.EXPERIMENT) | {"gates": {"scoer": {"at_least": 0.5}}}
    with pytest.raises(ConfigError, match="unknown metric of a gate 'scoer'; known: .*score"):
        hemaml.sweep(plan_from(wrong, stub.SPACE))
    assert len(stub.trained) == 1


def test_cross_validation_has_a_run_a_fold_and_means_above(stub):
    document = {**deepcopy(stub.EXPERIMENT), "split": {"folds": 3}}
    result = hemaml.sweep(plan_from(document, stub.SPACE))
    for trial in children(result, "trial"):
        folds = tracker().find({"kind": "fold"}, parent=trial.id)
        assert [run.tags["fold"] for run in folds] == ["0", "1", "2"]
        assert {run.status for run in folds} == {"FINISHED"}
        mean = sum(run.metrics["score"] for run in folds) / 3
        assert trial.metrics["score"] == pytest.approx(mean)
        assert len({run.metrics["score"] for run in folds}) == 3


def test_a_full_disk_ends_the_sweep_and_not_the_record(stub, monkeypatch):
    def full(self, folder):
        raise OSError(28, "No space left on device")

    opened = open_sweep(plan())
    with monkeypatch.context() as patch:
        patch.setattr(stub.StubModel, "save", full)
        with pytest.raises(StoreError, match="No space left"):
            opened.search()
    assert tracker().get(opened.run.id).status == "KILLED"
    result = reopen_sweep(opened.id).search()
    assert [trial.ending for trial in result.searched] == ["finished"] * 6 and agree(result.id)


def test_the_winner_is_a_servable_model_that_needs_no_pickle(stub, monkeypatch):
    import mlflow
    import numpy as np

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    result = hemaml.sweep(plan())
    run = tracker()._client.get_run(result.run_id)
    uri = f"models:/{run.outputs.model_outputs[0].model_id}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.tracking_uri())
    served = mlflow.pyfunc.load_model(uri)
    (one,) = served.predict(np.zeros((1, 20, 11, 3), dtype=np.uint8))  # any size
    assert one.shape == (2,)
    predicted = np.stack(served.predict(np.zeros((3, 8, 8, 3), dtype=np.uint8)))
    assert predicted.shape == (3, 2)
    assert predicted[0, 0] == pytest.approx(result.best["x"])
    assert served.metadata.metadata["classes"] == ["no", "yes"]
