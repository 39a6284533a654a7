"""A chosen point over the outer splits of a paper's protocol, each test part scored once.

The point is chosen before, on validation parts. Within each split the best step is chosen on the
split's own validation part; its test part is read once, after training. These runs carry the tag
`protocol.paper` and can never be promoted: their test parts overlap the promotion's held-out part.

Each score comes with its standard deviation over the splits, and with the 95 % interval of its mean
from a bootstrap over the groups of the whole data set (images where there are none): in each of the
draws every split is scored on what the draw has of its test part. The first holds what other splits
would change, the second what other patients in the test parts would; neither holds both.

Where each image of a classification set is in one test part, as with official folds or with each
group left out once, all test predictions together are scored as well: a part of one case alone has
no AUC.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from hemaml.core.dataset import Dataset
from hemaml.core.errors import ConfigError, TrialError
from hemaml.core.experiment import Plan, load_experiment
from hemaml.core.objective import Model, Objective
from hemaml.core.predictions import Answers
from hemaml.core.search import Assigned, Outcome, Report
from hemaml.core.seeding import derive_seed
from hemaml.core.task import Task
from hemaml.core.tracker import Run, Tracker
from hemaml.core.types import Point
from hemaml.data.splits import (
    split_digest,
    split_kind,
    split_record,
)
from hemaml.engines.workers import evaluate_all
from hemaml.explain.classification import draw
from hemaml.job import Job
from hemaml.notes import evaluation_note
from hemaml.ops.resampling import Interval, group_indices, mean_intervals, resampled_scores
from hemaml.overview import described
from hemaml.record import (
    ended_on_error,
    log_inputs,
    log_pictures,
    mean_and_deviation,
    open_job,
    page,
    run_tags,
)
from hemaml.training import STATUS, interval_metrics
from hemaml.trial import run_trial

DRAWS = "test_draws.safetensors"
"""Artifact of a split's run: the scores of its test part in each draw of the bootstrap."""
PREDICTIONS = "test_predictions.safetensors"
"""Artifact of a split's run: `probabilities`, N x C, of a classifier for its test part."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Test scores of one point over outer splits.

    Attributes:
        run_id: The run above the splits' runs.
        splits: One mapping of test scores a split.
        scores: Metric to (mean, sample standard deviation) over the splits.
        intervals: Metric to the 95 % interval of its mean; see the module.
        paper: The figures of the paper, with their source.
        link: Its page in the MLflow UI.
        pooled: Scores of all test predictions together, where each image has one; else empty.
        pooled_intervals: Their 95 % intervals.
    """

    run_id: str
    splits: Sequence[Mapping[str, float]]
    scores: Mapping[str, tuple[float, float]]
    intervals: Mapping[str, Interval]
    paper: Mapping[str, str | float]
    link: str
    pooled: Mapping[str, float]
    pooled_intervals: Mapping[str, Interval]


def evaluate(
    experiment: str | Path | Plan,
    *,
    overrides: Sequence[str] = (),
    point: Point | None = None,
    splits: int | None = None,
    seed: int = 0,
    workers: int = 1,
) -> Evaluation:
    """Trains a point on each outer split and scores each test part once.

    Args:
        experiment: A path or a loaded plan; its fixed parameters complete the point.
        overrides: `key=value` pairs, as `--set` takes them.
        point: The chosen point; default: the experiment's fixed parameters alone.
        splits: Number of outer splits; default: 5 random ones, or one for each official fold where
            the experiment has `folds: official`.
        seed: Of the random splits, and of the validation parts.
        workers: Processes that train splits side by side.

    Raises:
        ConfigError: `splits` is below 1, or not the number of official folds.
        TrialError: A split did not train to its end; the others are recorded.
    """
    plan = experiment if isinstance(experiment, Plan) else load_experiment(experiment, overrides)
    plan = plan.at(point or {})
    if splits is not None and splits < 1:
        raise ConfigError(f"`splits >= 1` must hold, but got {splits}.")
    job = open_job(plan).but(
        kind="split",
        sweep="",
        outer=(splits, seed),
        keep_model=True,
        tags={"protocol.paper": "true"},
    )
    num, kind = len(job.outer_splits), split_kind(job.outer_splits)
    params = plan.params(point or {}).model_dump(mode="json", by_alias=True)
    tags = {
        **run_tags(job),
        "kind": "evaluation",
        "outcome": "running",
        "protocol.paper": "true",
        "splits": num,
        "split.kind": kind,
        "split_digest": split_digest(job.outer_splits),
    }
    run = job.tracker.start(f"{plan.experiment.name}-evaluation", tags)
    job = job.but(parent=run.id)
    with described(job.tracker), ended_on_error(job.tracker, run):
        run.log_dataset(job.data, "outer splits")
        run.log_params(params)
        log_inputs(job, run, split_record(job.outer_splits))
        done = _train_splits(job, point or {}, seed, workers)
        rows = [_test_scores(job.tracker.get(outcome.run_id).metrics) for outcome in done]
        scores, intervals = mean_and_deviation(rows), _intervals(job, done)
        run.log_metrics({f"test/{name}": mean for name, (mean, _) in scores.items()})
        run.log_metrics({f"test/{name}_std": spread for name, (_, spread) in scores.items()})
        run.log_metrics(_test_intervals(intervals))
        pooled, ends = _pooled(job, run, done)
        note = evaluation_note(job, scores, intervals, pooled)
        run.set_tags({"outcome": "finished", "mlflow.note.content": note})
        run.end("FINISHED")
    paper = plan.experiment.paper
    return Evaluation(run.id, rows, scores, intervals, paper, page(job, run.id), pooled, ends)


def _train_splits(job: Job, point: Point, seed: int, workers: int) -> list[Outcome]:
    """Trains and scores each split."""
    trials = [
        Assigned(i, point, derive_seed(job.plan.experiment.seed, "outer", seed, i))
        for i in range(len(job.outer_splits))
    ]
    outcomes = evaluate_all(partial(run_split, job), trials, workers)
    failed = [(i, o) for i, o in enumerate(outcomes) if o.ending != "finished"]
    if failed:
        told = "; ".join(f"split {i}: {o.ending}: {o.reason}" for i, o in failed)
        raise TrialError(f"every split must train to its end, but {told}.")
    return outcomes


def _intervals(job: Job, done: Sequence[Outcome]) -> dict[str, Interval]:
    """Of the mean of each score over the splits; empty where the task says nothing of them."""
    if job.plan.objective.task.resampled is None:
        return {}
    found = mean_intervals([_load_arrays(job.tracker, outcome, DRAWS) for outcome in done])
    return {name: ends for name, ends in found.items() if np.isfinite(ends).all()}


def _pooled(
    job: Job, run: Run, done: Sequence[Outcome]
) -> tuple[dict[str, float], dict[str, Interval]]:
    """Scores, intervals and figures of all test predictions; empty where they cannot be pooled."""
    task, tests = job.plan.objective.task, [outer.test for outer in job.outer_splits]
    names = [name for test in tests for name in test.ids]
    found = [_load_arrays(job.tracker, outcome, PREDICTIONS) for outcome in done]
    if len(set(names)) < len(names) or not all(found):
        return {}, {}
    place = {name: index for index, name in enumerate(job.data.ids)}
    data = job.data.subset([place[name] for name in names])
    answers = Answers([row for arrays in found for row in arrays["probabilities"]])
    scores, intervals = score_test(task, {"": answers}, data)
    scores = {name: value for name, value in scores.items() if np.isfinite(value)}
    run.log_metrics({f"pooled/{name}": value for name, value in scores.items()})
    ends = interval_metrics(intervals)
    run.log_metrics({f"pooled_{name}": value for name, value in ends.items()})
    log_pictures(run, draw(answers, data), "figures")
    return scores, intervals


def run_split(job: Job, assigned: Assigned, report: Report) -> Outcome:
    """Trains on one outer split, then scores its test part, unless that has been done before."""
    outcome = run_trial(job, assigned, report)
    if outcome.ending != "finished":
        return outcome
    record = job.tracker.get(outcome.run_id)
    if _test_scores(record.metrics):
        return outcome
    source = outcome.reused_from or outcome.run_id
    with TemporaryDirectory() as folder:
        weights = job.tracker.download(source, "weights", Path(folder))
        model = job.plan.objective.model.load(weights)
    test = job.outer_split(assigned.number).test
    answers = test_answers(job.plan.objective, model, test)
    scores, intervals = score_test(job.plan.objective.task, answers, test)
    run = job.tracker.reopen(outcome.run_id)
    try:
        run.log_bytes(_draws(job, answers, test), DRAWS)
        run.log_bytes(_probabilities(answers), PREDICTIONS)
        run.log_metrics({f"test/{name}": value for name, value in scores.items()})
        run.log_metrics(_test_intervals(intervals))
    finally:
        run.end(STATUS[outcome.ending])
    return outcome


def test_answers(objective: Objective, model: Model, test: Dataset) -> dict[str, Answers]:
    """What a model and its views predict for a test part, by the prefix of their scores."""
    views = {f"{name}/": view(model) for name, view in objective.views.items()}
    predictors = {"": model, **views}
    return {name: Answers.of(seen, test) for name, seen in predictors.items() if seen is not None}


def score_test(
    task: Task, answers: Mapping[str, Answers], test: Dataset
) -> tuple[dict[str, float], dict[str, Interval]]:
    """Scores of a model and of its views on a test part, and their intervals there."""
    scores, intervals = dict[str, float](), dict[str, Interval]()
    for prefix, found in answers.items():
        scores |= {f"{prefix}{name}": value for name, value in task.score(found, test).items()}
        if task.intervals is not None:
            ends = task.intervals(found, test)
            intervals |= {f"{prefix}{name}": pair for name, pair in ends.items()}
    return scores, intervals


def _draws(job: Job, answers: Mapping[str, Answers], test: Dataset) -> bytes:
    """The scores of a test part in each draw of the bootstrap over the whole data set."""
    from safetensors.numpy import save

    data, scores_of = job.data, job.plan.objective.task.resampled
    if scores_of is None:
        return save({})
    place = {name: index for index, name in enumerate(data.ids)}
    places_N = np.array([place[name] for name in test.ids])
    group_M = group_indices(data.groups, len(data))
    drawn = {
        prefix: resampled_scores(scores_of(found, test), group_M, places_N)
        for prefix, found in answers.items()
    }
    return save(
        {f"{p}{name}": values_R for p, found in drawn.items() for name, values_R in found.items()}
    )


def _probabilities(answers: Mapping[str, Answers]) -> bytes:
    """What a classifier predicts for a test part; nothing of a segmentation, whose are large."""
    from safetensors.numpy import save

    rows = answers[""].found
    return save({"probabilities": np.stack(rows)} if rows[0].ndim == 1 else {})


def _load_arrays(tracker: Tracker, outcome: Outcome, name: str) -> dict[str, Any]:
    from safetensors.numpy import load_file

    with TemporaryDirectory() as folder:
        source = outcome.reused_from or outcome.run_id
        return load_file(tracker.download(source, name, Path(folder)))


def _test_intervals(intervals: Mapping[str, Interval]) -> dict[str, float]:
    return {f"test_{name}": value for name, value in interval_metrics(intervals).items()}


def _test_scores(metrics: Mapping[str, float]) -> dict[str, float]:
    prefix = "test/"
    return {k.removeprefix(prefix): v for k, v in metrics.items() if k.startswith(prefix)}
