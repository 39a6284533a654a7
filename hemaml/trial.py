"""One objective at one point as one tracked run: reuse, continue or train, and record the end."""

import colorsys
import math
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from hemaml.core.errors import ConfigError, HemamlError, StoreError
from hemaml.core.experiment import OBJECTIVE, SEED
from hemaml.core.identity import trial_key
from hemaml.core.search import Assigned, Outcome, Report
from hemaml.core.task import Fold
from hemaml.core.tracker import Record, Run, is_recorded
from hemaml.core.types import Frozen
from hemaml.course import CHANGES
from hemaml.data.splits import is_leaky, split_digest
from hemaml.job import Job
from hemaml.lockstep import is_curve
from hemaml.training import STATUS, Training, goal_values

KEPT = "keeps_model"
"""Tag of a run that has weights once it has finished."""


def run_trial(job: Job, assigned: Assigned, report: Report) -> Outcome:
    """Runs one trial, or takes over the result of an equal one, and records how it ended.

    A run of this number that was interrupted is continued from its last checkpoint.

    Raises:
        StoreError: The tracking store or the disk cannot be used: no trial could succeed.
        DataError: The data cannot be read.
        GoalError: The sweep optimises a metric that does not exist.
        ConfigError: A recorded model that it starts from has learned from images it is scored on.
    """
    job, searched = job.at(assigned.point), assigned.point
    params = job.plan.params(searched)
    seed, folds = job.seed_of(assigned), job.folds_of(assigned)
    key = key_of(job, assigned)
    mine = _run_of(job, assigned, key)
    if mine is not None and mine.tags.get("outcome") == "finished":
        return _recorded(job, mine, key)  # its end was not heard by the study
    _check_lineage(job, params, assigned)
    num_params = job.plan.objective.size(params)
    run = _reopen(job, mine) if mine else _start(job, assigned, folds, seed, key)
    besides = {name: searched[name] for name in (OBJECTIVE, SEED) if name in searched}
    limit = job.plan.experiment.sweep.max_params
    excess = None if limit is None else num_params - limit
    try:
        _log_datasets(run, folds)
        run.log_params(params.model_dump(mode="json", by_alias=True) | besides)
        if excess is not None and excess > 0:
            run.log_metrics({"params_total": num_params})
            reason = f"{num_params} parameters, {excess} above `max_params: {limit}`"
            outcome = Outcome("over_budget", run_id=run.id, key=key, reason=reason)
        elif not job.is_population and (twin := _finished_twin(job, key)):
            outcome = _take_over(job, run, twin, key)
        else:
            training = Training(job, assigned, folds, seed, run, report, resumed=mine is not None)
            outcome = training.run(key, num_params)
    except BaseException as error:  # Ctrl-C, or a fault that ends the sweep: to be continued
        with suppress(StoreError):
            _end(run, Outcome("interrupted", reason=reason_of(error)), excess)
        raise
    outcome = _end(run, outcome, excess)
    shutil.rmtree(job.scratch / run.id, ignore_errors=True)  # last: until then it may be needed
    return outcome


def reason_of(error: BaseException) -> str:
    """Why an error has ended a run, for its record; words that are not ours may have a password."""
    if isinstance(error, HemamlError):
        return str(error)[:1000]
    return type(error).__name__ if isinstance(error, Exception) else "its process was told to end"


def key_of(job: Job, assigned: Assigned) -> str:
    """The key of a trial; see `hemaml.core.identity.trial_key`."""
    params = job.plan.params(assigned.point)
    return trial_key(
        objective=job.plan.experiment.objective,
        params=params,
        data_digest=job.data.digest,
        split_digest=split_digest(job.folds_of(assigned)),
        seed=job.seed_of(assigned),
        files_digest=job.plan.objective.files(params),
        changes=assigned.changes,
    )


def _check_lineage(job: Job, params: Frozen, assigned: Assigned) -> None:
    """No image is scored from which a recorded model has learned that a parameter names."""
    values = filter(is_recorded, params.model_dump(mode="json").values())
    for uri in values:
        images = _scored_images(job, assigned)
        if seen := len(images & job.tracker.trained_on(uri)):
            raise ConfigError(
                "a model that another builds on must not have learned from images that are "
                f"scored, but {uri} has from {seen} of {len(images)} (validation, and test or "
                "held-out part). Use the split of its training, a model that was trained on other "
                "data or in the fold itself, or other weights."
            )


def _scored_images(job: Job, assigned: Assigned) -> frozenset[str]:
    """Digests of the images of the validation parts, and of the test or the held-out part."""
    if job.outer is not None:
        last = job.outer_split(assigned.number).test
    else:
        last = job.plan.objective.task.held_out(job.data)[1]
    parts = [*(fold.val for fold in job.folds_of(assigned)), last]
    return frozenset(content for part in parts for content in part.contents())


def _run_of(job: Job, assigned: Assigned, key: str) -> Record | None:
    """The run of this number in this sweep, from an earlier attempt at the same trial.

    After a change of the code the key differs: that attempt cannot be continued and stays as it is.
    """
    if job.parent is None:
        return None
    tags = {"kind": job.kind, "trial": str(assigned.number), "trial_key": key}
    return next(iter(job.tracker.find(tags, parent=job.parent, limit=1)), None)


def _finished_twin(job: Job, key: str) -> Record | None:
    tags = {"trial_key": key, "outcome": "finished"}
    if job.keep_model:
        tags |= {KEPT: "true", "kind": job.kind}
    return next(
        (
            record
            for record in job.tracker.find(tags, limit=20)
            if not record.tags.get("reused_from")
            and (record.tags["kind"] != "trial" or CHANGES not in record.tags)
            and all(math.isfinite(record.metrics.get(g.metric, math.nan)) for g in job.plan.goals)
        ),
        None,
    )


def _reopen(job: Job, record: Record) -> Run:
    run = job.tracker.reopen(record.id)
    run.set_tags({"outcome": "running", "reason": ""})
    return run


def _start(job: Job, assigned: Assigned, folds: Sequence[Fold], seed: int, key: str) -> Run:
    import torch

    experiment = job.plan.experiment
    tags = {
        "kind": job.kind,
        "trial": assigned.number,
        "trial_key": key,
        "sweep": job.sweep,
        "experiment": experiment.name,
        "objective": experiment.objective,
        "data": job.data.name,
        "data_digest": job.data.digest,
        "split_digest": split_digest(folds),
        "split.leaky": str(is_leaky(job.data, experiment.split)).lower(),
        "seed": seed,
        "device": job.device,
        "threads": torch.get_num_threads(),
        KEPT: "true" if job.keep_model else "",
        "outcome": "running",
        "mlflow.runColor": _colour(assigned.number),
        **job.tags,
    }
    name = f"{experiment.name}-{job.kind}-{assigned.number:04d}"
    return job.tracker.start(name, {k: v for k, v in tags.items() if v != ""}, job.parent)


def _log_datasets(run: Run, folds: Sequence[Fold]) -> None:
    for index, fold in enumerate(folds):
        suffix = f"-{index}" if len(folds) > 1 else ""
        run.log_dataset(fold.train, f"train{suffix}")
        run.log_dataset(fold.val, f"validation{suffix}")


def _colour(number: int) -> str:
    """Of a trial in the UI's charts: by the golden ratio, so that neighbours differ most."""
    shares = colorsys.hls_to_rgb(number * 0.618034 % 1, 0.45, 0.65)
    return "#" + "".join(f"{round(255 * share):02x}" for share in shares)


def _recorded(job: Job, record: Record, key: str) -> Outcome:
    return Outcome(
        "finished",
        goal_values(job.plan, record.metrics),
        run_id=record.id,
        key=key,
        reused_from=record.tags.get("reused_from", ""),
    )


def _take_over(job: Job, run: Run, twin: Record, key: str) -> Outcome:
    """Gives a run the result of an equal trial, and says whose it is."""
    summary = {name: value for name, value in twin.metrics.items() if not is_curve(name)}
    run.log_metrics(summary)
    run.set_tags({"reused_from": twin.id})
    values = goal_values(job.plan, summary)
    return Outcome("finished", values, run_id=run.id, key=key, reused_from=twin.id)


def _end(run: Run, outcome: Outcome, excess: int | None) -> Outcome:
    run.flush()  # whoever sees the outcome shall find the scores
    reason = {"reason": outcome.reason} if outcome.reason else {}
    run.set_tags({"outcome": outcome.ending, **reason})
    run.end(STATUS[outcome.ending])
    return replace(outcome, excess=excess)
