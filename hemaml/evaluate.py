"""A chosen point over the outer splits of a paper's protocol, each test part scored once.

The point is chosen before, on validation parts. Within each split the best step is chosen on the
split's own validation part; its test part is read once, after training. These runs carry the tag
`protocol.paper` and can never be promoted: their test parts overlap the promotion's held-out part.

Each score comes with its standard deviation over the splits, and with the 95 % interval of its mean
from a bootstrap over the groups of the whole data set (images where there are none): in each of the
draws every split is scored on what the draw has of its test part. The first holds what other splits
would change, the second what other patients in the test parts would; neither holds both.

An evaluation that was interrupted goes on where it was when it is asked for again; one that has
finished is told again, without training or scoring anything.

Where each image of a classification set is in one test part, as with folds or with each group left
out once, all test predictions together are scored as well: a part of one case alone has no AUC.
Where test parts overlap, only their confusion matrices are added up. Each split's run has the
figures of its own test part.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from hemaml.core.dataset import Dataset
from hemaml.core.documents import canonical_json
from hemaml.core.errors import ConfigError, TrialError
from hemaml.core.experiment import MEASURED, Plan, plan_of
from hemaml.core.objective import Model, Objective
from hemaml.core.predictions import Answers
from hemaml.core.provenance import this_process
from hemaml.core.search import Assigned, Change, Outcome, Report
from hemaml.core.seeding import derive_seed
from hemaml.core.task import Task
from hemaml.core.tracker import Record, Run, Tracker
from hemaml.core.types import Float64Array, Point
from hemaml.data.splits import split_digest, split_kind, split_record
from hemaml.engines.workers import check_workers, evaluate_all
from hemaml.explain import Picture
from hemaml.explain.classification import draw, draw_confusion
from hemaml.job import Job
from hemaml.metrics import mean_and_deviation, mean_metrics
from hemaml.notes import evaluation_note
from hemaml.ops.resampling import (
    Interval,
    group_indices,
    interval_metrics,
    mean_intervals,
    resampled_scores,
)
from hemaml.overview import described, refresh
from hemaml.record import (
    at_rest,
    ended_on_error,
    lock,
    log_inputs,
    log_pictures,
    open_job,
    page,
    reconcile,
    run_tags,
)
from hemaml.training import STATUS
from hemaml.trial import key_of, run_trial

DRAWS = "test_draws.safetensors"
"""Artifact of a split's run: the scores of its test part in each draw of the bootstrap."""
SCORED = "scored"
"""Tag of a split's run that has scored its test part itself."""
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
    changes: Sequence[Change] = (),
    splits: int | None = None,
    seed: int = 0,
    workers: int = 1,
    parent: str | None = None,
) -> Evaluation:
    """Trains a point on each outer split and scores each test part once.

    Args:
        experiment: A path or a loaded plan; its fixed parameters complete the point.
        overrides: `key=value` pairs, as `--set` takes them.
        point: The chosen point; default: the experiment's fixed parameters alone.
        changes: What changes on the way, as of a population's winner.
        splits: Number of outer splits; default: 5 random ones, or one for each official fold where
            the experiment has `folds: official`.
        seed: Of the random splits, and of the validation parts.
        workers: Processes that train splits side by side.
        parent: Run that a new evaluation goes below.

    Raises:
        ConfigError: `splits` or `workers` is below 1, or `splits` not that of official folds.
        TrialError: A split did not train to its end, or its worker died; the others are recorded.
    """
    check_workers(workers)
    plan = plan_of(experiment, overrides, search=False).at(point or {})
    if splits is not None and splits < 1:
        raise ConfigError(f"`splits >= 1` must hold, but got {splits}.")
    job = open_job(plan).but(
        kind="split",
        sweep="",
        outer=(splits, seed),
        keep_model=True,
        tags={"protocol.paper": "true"},
    )
    trials = [
        Assigned(
            i, point or {}, derive_seed(plan.experiment.seed, "outer", seed, i), tuple(changes)
        )
        for i in range(len(job.outer_splits))
    ]
    run = _begin(job, _key(job, trials), parent)
    job = job.but(parent=run.id)
    if isinstance(run, Record):
        return _found(job, run.id, _train_splits(job, trials, workers=1))
    with described(job.tracker), ended_on_error(job.tracker, run):
        refresh(job.tracker)
        run.log_dataset(job.data, "outer splits")
        run.log_params(plan.params(point or {}).model_dump(mode="json", by_alias=True))
        log_inputs(job, run, split_record(job.outer_splits))
        done = _train_splits(job, trials, workers)
        found = _found(job, run.id, done)
        _log(job, run, found, done)
        run.set_tags({"outcome": "finished"})
        run.end("FINISHED")
    return found


def _key(job: Job, trials: Sequence[Assigned]) -> str:
    """Hex key of an evaluation: of its trials, and of what its run says of them."""
    experiment = job.plan.experiment
    said = [experiment.name, experiment.question, experiment.paper]
    text = canonical_json([*said, [key_of(job, trial) for trial in trials]])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _begin(job: Job, key: str, parent: str | None) -> Run | Record:
    """The run of an evaluation, to be written; or the record of an equal one that has finished."""
    with lock(key):  # of two that begin at once, one alone goes on with what a kill has left
        found = job.tracker.find({"kind": "evaluation", "evaluation_key": key})
        free = [record for record in found if at_rest(record)]
        if finished := [record for record in free if record.tags["outcome"] == "finished"]:
            return finished[-1]
        return _reopen(job, free[-1]) if free else _open(job, key, parent)


def _open(job: Job, key: str, parent: str | None) -> Run:
    tags = {
        **run_tags(job),
        "kind": "evaluation",
        "evaluation_key": key,
        "outcome": "running",
        "protocol.paper": "true",
        "splits": len(job.outer_splits),
        "split.kind": split_kind(job.outer_splits),
        "split_digest": split_digest(job.outer_splits),
    }
    return job.tracker.start(f"{job.plan.experiment.name}-evaluation", tags, parent)


def _reopen(job: Job, record: Record) -> Run:
    run = job.tracker.reopen(record.id)
    run.set_tags({"outcome": "running", "reason": "", "process": this_process()})
    reconcile(job.tracker, record.id)  # a split killed between its outcome and its end
    return run


def _found(job: Job, run_id: str, done: Sequence[Outcome]) -> Evaluation:
    """What the splits' runs say together."""
    records = [job.tracker.get(outcome.run_id) for outcome in done]
    rows = [_test_scores(record.metrics) for record in records]
    pooled, ends = dict[str, float](), dict[str, Interval]()
    together = _together(job, done)
    if together is not None and not _overlap(together[1]):
        pooled, ends = score_test(job.plan.objective.task, {"": together[0]}, together[1])
    return Evaluation(
        run_id=run_id,
        splits=rows,
        scores=mean_and_deviation(rows),
        intervals=_intervals(job, done),
        paper=job.plan.experiment.paper,
        link=page(job, run_id),
        pooled={name: value for name, value in pooled.items() if np.isfinite(value)},
        pooled_intervals=ends,
    )


def _log(job: Job, run: Run, found: Evaluation, done: Sequence[Outcome]) -> None:
    run.log_metrics(mean_metrics(found.scores, "test/"))
    run.log_metrics(mean_metrics(_measured(job, done)))
    run.log_metrics(_test_intervals(found.intervals))
    ends = interval_metrics(found.pooled_intervals)
    run.log_metrics({f"pooled/{name}": value for name, value in found.pooled.items()})
    run.log_metrics({f"pooled_{name}": value for name, value in ends.items()})
    if (together := _together(job, done)) is not None:
        log_pictures(run, _draw_together(job, *together), "figures")
    note = evaluation_note(job, found.scores, found.intervals, found.pooled)
    run.set_tags({"mlflow.note.content": note})


def _measured(job: Job, done: Sequence[Outcome]) -> dict[str, tuple[float, float]]:
    """What figures measured of each split's model, on its validation part: mean and deviation."""
    runs = [job.tracker.get(outcome.run_id).metrics for outcome in done]
    rows = [{n: v for n, v in metrics.items() if n.startswith(MEASURED)} for metrics in runs]
    return mean_and_deviation(rows)


def _train_splits(job: Job, trials: Sequence[Assigned], workers: int) -> list[Outcome]:
    """Trains and scores each split."""
    outcomes = evaluate_all(partial(run_split, job), trials, workers)
    failed = dict[str, list[str]]()
    for i, outcome in enumerate(outcomes):
        if outcome.ending != "finished":
            failed.setdefault(f"{outcome.ending}: {outcome.reason}", []).append(str(i))
    if failed:
        told = "; ".join(f"split {', '.join(which)}: {why}" for why, which in failed.items())
        raise TrialError(f"every split must train to its end, but {told}.")
    return outcomes


def _intervals(job: Job, done: Sequence[Outcome]) -> dict[str, Interval]:
    """Of the mean of each score over the splits; empty where the task says nothing of them."""
    if job.plan.objective.task.resampled is None:
        return {}
    return finite_intervals([_load_arrays(job.tracker, outcome, DRAWS) for outcome in done])


def finite_intervals(drawn: Sequence[Mapping[str, Float64Array]]) -> dict[str, Interval]:
    """The 95 % interval of each mean over parts with these draws, where it is defined."""
    found = mean_intervals(drawn)
    return {name: ends for name, ends in found.items() if np.isfinite(ends).all()}


def _together(job: Job, done: Sequence[Outcome]) -> tuple[Answers, Dataset] | None:
    """All test predictions of a classifier with their images, as often as those were tested."""
    found = [_load_arrays(job.tracker, outcome, PREDICTIONS) for outcome in done]
    if not all(found):
        return None
    place = {name: index for index, name in enumerate(job.data.ids)}
    tested = [place[name] for outer in job.outer_splits for name in outer.test.ids]
    answers = Answers([row for arrays in found for row in arrays["probabilities"]])
    return answers, job.data.subset(tested)


def _draw_together(job: Job, answers: Answers, tested: Dataset) -> list[Picture]:
    """All figures, or the sum of the confusion matrices of test parts that overlap."""
    if not _overlap(tested):
        return draw(answers, tested)
    name = f"{tested.name} in {len(job.outer_splits)} test parts"
    return [draw_confusion(answers, replace(tested, name=name))]


def _overlap(tested: Dataset) -> bool:
    """Whether an image was tested more than once, so that its predictions cannot be pooled."""
    return len(set(tested.ids)) < len(tested)


def run_split(job: Job, assigned: Assigned, report: Report) -> Outcome:
    """Trains on one outer split, then scores its test part, unless that has been done before."""
    from safetensors.numpy import save

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
    scores |= job.plan.objective.scores(model, test)
    run = job.tracker.reopen(outcome.run_id)
    try:
        drawn = test_draws(job.plan.objective.task, answers, test, job.data)
        run.log_bytes(save(drawn), DRAWS)
        run.log_bytes(_probabilities(answers), PREDICTIONS)
        if "classification" in job.plan.objective.task.figures:
            # As PNG alone: a page holds all of plotly, 5 MB for each figure of each split.
            pictures = [replace(picture, html=None) for picture in draw(answers[""], test)]
            log_pictures(run, pictures, "figures")
        run.set_tags({SCORED: "true"})
        # Last: a split that has them is not scored again after a kill.
        of_test = {f"test/{name}": value for name, value in scores.items()}
        run.log_metrics(_test_intervals(intervals) | of_test)
    finally:
        run.end(STATUS[outcome.ending])
    return outcome


def test_answers(objective: Objective, model: Model, test: Dataset) -> dict[str, Answers]:
    """What a model and its views predict for a test part, by the prefix of their scores."""
    predictors = objective.predictors(model)
    return {prefix: Answers.of(seen, test) for prefix, seen in predictors.items()}


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


def test_draws(
    task: Task, answers: Mapping[str, Answers], test: Dataset, whole: Dataset
) -> dict[str, Float64Array]:
    """The scores of a test part in each draw of the bootstrap over the whole data set.

    Empty where the task says nothing of draws.
    """
    if task.resampled is None:
        return {}
    place = {name: index for index, name in enumerate(whole.ids)}
    places_N = np.array([place[name] for name in test.ids])
    group_M = group_indices(whole.groups, len(whole))
    drawn = {
        prefix: resampled_scores(task.resampled(found, test), group_M, places_N)
        for prefix, found in answers.items()
    }
    return {
        f"{p}{name}": values_R for p, found in drawn.items() for name, values_R in found.items()
    }


def _probabilities(answers: Mapping[str, Answers]) -> bytes:
    """What a classifier predicts for a test part; nothing of a segmentation, whose are large."""
    from safetensors.numpy import save

    rows = answers[""].found
    return save({"probabilities": np.stack(rows)} if rows[0].ndim == 1 else {})


def _load_arrays(tracker: Tracker, outcome: Outcome, name: str) -> dict[str, Any]:
    from safetensors.numpy import load_file

    run = tracker.get(outcome.run_id)
    # Who took over a run that had not been scored yet has scored it itself.
    source = outcome.run_id if SCORED in run.tags else outcome.reused_from or outcome.run_id
    with TemporaryDirectory() as folder:
        return load_file(tracker.download(source, name, Path(folder)))


def _test_intervals(intervals: Mapping[str, Interval]) -> dict[str, float]:
    return {f"test_{name}": value for name, value in interval_metrics(intervals).items()}


def _test_scores(metrics: Mapping[str, float]) -> dict[str, float]:
    prefix = "test/"
    return {k.removeprefix(prefix): v for k, v in metrics.items() if k.startswith(prefix)}
