"""Evaluation over outer splits: how many there are, and what the run says of them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from statistics import fmean, stdev

import numpy as np
import pytest
from typer.testing import CliRunner

import hemaml
from hemaml import training
from hemaml.cli import app
from hemaml.cli.show import print_scores
from hemaml.core.errors import ConfigError, TrialError
from hemaml.core.experiment import plan_from
from hemaml.core.markdown import markdown_table
from hemaml.core.settings import tracking_uri
from hemaml.record import recorded_course
from hemaml.tracking.mlflow_run import MlflowRun
from hemaml.tracking.mlflow_tracker import MlflowTracker

VARIED = "drawn among good assignments of groups: they vary on purpose and are not the best one"


def read(section):
    """Three official folds of four patients with two images each."""
    import stub

    parts = tuple(f"fold_{i // 8}" for i in range(24))
    groups = tuple(f"p{i // 4 * 2 + i % 2}" for i in range(24))  # of both classes alike
    return replace(stub.read(section), parts=parts, groups=groups)


@pytest.fixture
def plan(stub, monkeypatch):
    task = replace(stub.task, read=read)
    monkeypatch.setattr(stub, "objective", replace(stub.objective, task=task))
    return lambda **split: plan_from({**stub.EXPERIMENT, "split": split}, None)


def record_of(result):
    return MlflowTracker(tracking_uri(), "stub").get(result.run_id)


def test_official_folds_are_all_scored_without_being_counted(plan):
    result = hemaml.evaluate(plan(folds="official", val=0.25))
    assert len(result.splits) == 3
    tags = record_of(result).tags
    assert (tags["splits"], tags["split.kind"], tags["kind"]) == ("3", "official", "evaluation")
    assert "3 official folds, each the test part once; 25%" in tags["mlflow.note.content"]


def test_another_number_than_that_of_official_folds_is_refused_before_any_run(plan):
    with pytest.raises(ConfigError, match="Leave `splits` out"):
        hemaml.evaluate(plan(folds="official"), splits=4)


SMEARS = "experiments/wbc_segmentation/smgnn_smears.yaml"


@pytest.mark.parametrize("num", [0, -2])
def test_nobody_to_work_is_refused_before_any_run(workplace, num):
    told = f"`workers >= 1` must hold, but got {num}. Leave it out"
    with pytest.raises(ConfigError, match=told):
        hemaml.evaluate(SMEARS, workers=num)
    for command in (["evaluate", SMEARS], ["reproduce", "wbc-table-1"]):
        with pytest.raises(ConfigError, match=told):
            CliRunner().invoke(app, [*command, "--workers", str(num)], catch_exceptions=False)
    assert MlflowTracker(tracking_uri(), "wbc_segmentation").find({}) == []


def test_a_point_is_of_a_sweep_or_of_a_run(workplace):
    both = ["--sweep", "a", "--run", "b"]
    with pytest.raises(ConfigError, match="sweep 'a' and the run 'b': give one of --sweep and"):
        CliRunner().invoke(app, ["evaluate", SMEARS, *both], catch_exceptions=False)
    with pytest.raises(ConfigError, match="sweep None and the run None"):
        recorded_course(hemaml.load_experiment(SMEARS))


def test_one_split_has_no_deviation_rather_than_one_of_zero(plan, capsys):
    result = hemaml.evaluate(plan(test=0.2), splits=1)
    record = record_of(result)
    assert "test/score" in record.metrics and "test/score_std" not in record.metrics
    mean, deviation = result.scores["score"]
    assert np.isnan(deviation)
    assert f"score {mean:.4f} on 1 test part;" in record.tags["mlflow.note.content"]
    print_scores("One", result.scores, {})
    assert "nan" not in capsys.readouterr().out


def test_an_image_split_on_data_with_patients_says_that_it_leaks(plan):
    result = hemaml.evaluate(plan(group="none", test=0.2), splits=2)
    tags = record_of(result).tags
    assert (tags["split.kind"], tags["split.leaky"]) == ("leaky", "true")
    assert (
        "2 random splits into 70% train, 10% validation and 20% test" in tags["mlflow.note.content"]
    )
    assert "LEAKY" in tags["mlflow.note.content"]


def test_random_splits_are_five_and_not_the_best_that_groups_allow(plan):
    result = hemaml.evaluate(plan())
    assert len(result.splits) == 5
    tags = record_of(result).tags
    assert tags["split.kind"] == "grouped"
    assert VARIED in tags["mlflow.note.content"]
    for other in ({"group": "none"}, {"outer_folds": 3}):
        found = hemaml.evaluate(plan(**other))
        assert VARIED not in record_of(found).tags["mlflow.note.content"]


@pytest.fixture
def scored(plan, stub, monkeypatch):
    """A plan whose score is the share of images with class 1, which depends on the test part."""

    def resampled(model, data):
        labels = np.array(data.labels)
        return lambda weights_NR: {"score": labels @ weights_NR / weights_NR.sum(axis=0)}

    task = replace(
        stub.objective.task,
        score=lambda model, data: {"score": float(np.mean(data.labels))},
        intervals=lambda model, data: {"score": (0.25, 0.75)},
        resampled=resampled,
    )
    views = {"twin": lambda model: model, "none": lambda model: None}
    monkeypatch.setattr(stub, "objective", replace(stub.objective, task=task, views=views))
    return plan


def test_means_have_intervals_over_groups_printed_and_logged(scored, capsys):
    result = hemaml.evaluate(scored(test=0.4), splits=3)
    low, high = result.intervals["score"]
    mean, deviation = result.scores["score"]
    assert low < mean < high
    record = record_of(result)
    assert [record.metrics[f"test_ci/score_{end}"] for end in ("low", "high")] == [low, high]
    (line,) = markdown_table(
        ["score", f"{mean:.4f} ± {deviation:.4f}", f"{low:.4f} to {high:.4f}", "0.5"], []
    )[:1]
    assert line in record.tags["mlflow.note.content"]
    # A model's views are scored and have intervals as it has; a view that is absent has none.
    assert result.intervals.keys() == {"score", "twin/score"}
    assert result.intervals["twin/score"] == (low, high)
    tracker = MlflowTracker(tracking_uri(), "stub")
    for split in tracker.find({"kind": "split"}, parent=result.run_id):
        assert split.metrics["test_ci/twin/score_low"] == 0.25
    print_scores("Test", result.scores, result.paper, result.intervals)
    assert f"{low:.4f} to {high:.4f}" in capsys.readouterr().out


def test_what_figures_measure_of_the_splits_models_has_a_mean_and_a_deviation(plan, monkeypatch):
    def measured(names, model, data, device):
        return {"explain/deletion": sum(map(int, data.ids)), "explain/insertion": float("nan")}

    monkeypatch.setattr(training, "measurements", measured)
    result = hemaml.evaluate(plan(), splits=3)
    tracker = MlflowTracker(tracking_uri(), "stub")
    splits = tracker.find({"kind": "split"}, parent=result.run_id)
    values = [split.metrics["explain/deletion"] for split in splits]
    assert len(set(values)) == 3
    metrics = record_of(result).metrics
    assert metrics["explain/deletion"] == pytest.approx(fmean(values))
    assert metrics["explain/deletion_std"] == pytest.approx(stdev(values))
    assert not any("explain/insertion" in name for name in metrics)
    assert not any("explain" in name for name in result.scores)  # which the command prints


def test_an_equal_evaluation_takes_over_the_draws_too(scored, stub):
    first = hemaml.evaluate(scored(test=0.4), splits=3)
    trained = len(stub.trained)
    again = hemaml.evaluate(scored(test=0.4), splits=3)
    assert len(stub.trained) == trained
    assert (again.intervals, again.scores) == (first.intervals, first.scores)


def test_what_took_over_a_training_that_was_not_scored_is_taken_over_itself(plan, monkeypatch):
    """Ctrl-C between a split's training and its scoring, then the same point for another paper."""
    module = import_module("hemaml.evaluate")
    asked, score_test = plan(), module.score_test

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "score_test", interrupted)
    with pytest.raises(KeyboardInterrupt):
        hemaml.evaluate(asked, splits=2)
    monkeypatch.setattr(module, "score_test", score_test)
    document = asked.experiment.document()
    for question in ("Another?", "A third?"):
        other = plan_from({**document, "question": question}, None)
        assert len(hemaml.evaluate(other, splits=2).splits) == 2


def interrupt(*arguments):
    raise KeyboardInterrupt


@pytest.mark.parametrize("method", ["set_tags", "log_metrics"])
def test_a_split_killed_while_it_is_scored_is_scored_again(plan, monkeypatch, method):
    """Its training was taken over from one that was never scored, and which has no draws."""
    module, asked = import_module("hemaml.evaluate"), plan()
    other = plan_from({**asked.experiment.document(), "question": "Another?"}, None)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "score_test", interrupt)
        hemaml.evaluate(asked, splits=1)
    write = getattr(MlflowRun, method)

    def killed(self, values, *rest):
        if values.keys() & {module.SCORED, "test/score"}:
            raise KeyboardInterrupt
        write(self, values, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MlflowRun, method, killed)
        hemaml.evaluate(other, splits=1)
    assert len(hemaml.evaluate(other, splits=1).splits) == 1


def test_an_evaluation_whose_worker_died_goes_on(plan, stub, monkeypatch):
    module = import_module("hemaml.evaluate")

    def dying(evaluate, trials, num_workers):
        evaluate(trials[0], lambda step, value: None)
        raise TrialError("a worker died")

    with monkeypatch.context() as patch, pytest.raises(TrialError):
        patch.setattr(module, "evaluate_all", dying)
        hemaml.evaluate(plan(), splits=3)
    tracker = MlflowTracker(tracking_uri(), "stub")
    (left,) = tracker.find({"kind": "evaluation"})
    assert (left.status, left.tags["outcome"]) == ("KILLED", "interrupted")
    assert hemaml.evaluate(plan(), splits=3).run_id == left.id
    assert len(stub.trained) == 3


def test_of_two_that_begin_at_once_one_goes_on_with_what_a_kill_has_left(plan, monkeypatch):
    module = import_module("hemaml.evaluate")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "evaluate_all", interrupt)
        hemaml.evaluate(plan(), splits=1)
    found, begun, reopen, used = threading.Barrier(2), threading.Barrier(2), module._reopen, []

    def slowly(job, record):
        with suppress(threading.BrokenBarrierError):
            found.wait(0.5)
        return reopen(job, record)

    def train(job, trials, workers):
        used.append(job.parent)
        begun.wait(60)
        raise TrialError("enough")

    monkeypatch.setattr(module, "_reopen", slowly)
    monkeypatch.setattr(module, "_train_splits", train)
    with ThreadPoolExecutor() as pool:
        both = [pool.submit(hemaml.evaluate, plan(), splits=1) for _ in range(2)]
    assert all(isinstance(one.exception(), TrialError) for one in both)
    assert len(set(used)) == 2
