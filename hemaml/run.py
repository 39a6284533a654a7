"""One point of an experiment, trained and recorded with its pictures and weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hemaml.core.experiment import Plan, plan_of
from hemaml.core.search import Assigned, Ending
from hemaml.core.types import Point
from hemaml.data.splits import split_record
from hemaml.notes import run_note
from hemaml.record import (
    log_inputs,
    log_model_pictures,
    open_job,
    page,
    run_tags,
)
from hemaml.registering import log_servable, unregistered
from hemaml.training import STATUS
from hemaml.trial import run_trial


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended.

    Attributes:
        run_id: The tracked run.
        ending: `finished`, or what ended it earlier.
        reason: For the user, where it did not finish.
        metrics: Scores of the best validation, sizes and times.
        reused_from: Run of an equal trial whose result was taken over.
        link: Its page in the MLflow UI.
        unregistered: Where its model was to be registered and this user may not: who does, and how.
    """

    run_id: str
    ending: Ending
    reason: str
    metrics: Mapping[str, float]
    reused_from: str
    link: str
    unregistered: str = ""


def run(
    experiment: str | Path | Plan,
    *,
    overrides: Sequence[str] = (),
    point: Point | None = None,
    seed: int | None = None,
) -> RunResult:
    """Trains one point on the experiment's folds.

    Args:
        experiment: A path or a loaded plan.
        overrides: `key=value` pairs, as `--set` takes them.
        point: Values for searched parameters; default: the objective's defaults.
        seed: Replaces the seed that follows from the experiment's seed and the point.

    Raises:
        ConfigError, DataError, StoreError: As in `sweep`.
    """
    job = open_job(plan_of(experiment, overrides, search=False).at(point or {}))
    tags = {str(key): str(value) for key, value in run_tags(job).items()}
    note = {"mlflow.note.content": run_note(job)}
    job = job.but(kind="run", keep_model=True, sweep="", tags={**tags, **note})
    outcome = run_trial(job, Assigned(0, point or {}, seed), lambda step, value: None)
    tracker = job.tracker
    if outcome.ending == "finished":
        source = outcome.reused_from or outcome.run_id
        written = tracker.reopen(outcome.run_id)
        try:
            log_inputs(job, written, split_record(job.folds))
            log_model_pictures(job, written, source, "pictures")
            log_servable(job, written, source)
        finally:  # it has finished, whatever becomes of its pictures
            written.end(STATUS[outcome.ending])
    record = tracker.get(outcome.run_id)
    return RunResult(
        run_id=outcome.run_id,
        ending=outcome.ending,
        reason=outcome.reason,
        metrics=dict(record.metrics),
        reused_from=outcome.reused_from,
        link=page(job, outcome.run_id),
        unregistered=unregistered(record),
    )
