"""What the verbs share: a job on the stores in use, and how results are written and found again."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory

import yaml
from filelock import FileLock, Timeout

from hemaml.core import settings
from hemaml.core.documents import parse_yaml
from hemaml.core.errors import ConfigError, UnknownName
from hemaml.core.experiment import Plan, plan_from
from hemaml.core.objective import objective_names
from hemaml.core.provenance import git_state
from hemaml.core.tracker import Record, Run, Tracker
from hemaml.core.types import Point
from hemaml.data.splits import is_leaky, split_digest
from hemaml.engines.optuna_engine import Searched
from hemaml.explain import Picture, pictures
from hemaml.job import Job
from hemaml.tracking.mlflow_tracker import MlflowTracker

CURVES = ("val/", "train/", "time/")
"""Prefixes of the metrics that are curves; all others are a run's summary."""


def open_job(plan: Plan, *, sweep_id: str = "") -> Job:
    """A job on the stores that the settings name.

    Raises:
        DataError: The data cannot be read or split.
        ConfigError: The device that is asked for is absent.
        StoreError: The tracking store cannot be used.
    """
    job = Job(
        plan=plan,
        open_tracker=partial(MlflowTracker, settings.tracking_uri(), plan.experiment.task),
        scratch=settings.store_root() / "scratch",
        cache_folder=settings.cache_root(),
        sweep=sweep_id,
    )
    _ = job.folds, job.device, job.tracker  # fail before anything is recorded
    return job


def run_tags(job: Job) -> dict[str, object]:
    """Tags that say what a top-level run is about and what code made it."""
    experiment = job.plan.experiment
    return {
        "experiment": experiment.name,
        "objective": experiment.objective,
        "data": job.data.name,
        "data_digest": job.data.digest,
        "held_out_digest": job.plan.objective.task.held_out(job.data)[1].digest,
        "split_digest": split_digest(job.folds),
        "split.leaky": str(is_leaky(job.data, experiment.split)).lower(),
        "seed": experiment.seed,
        **git_state(),
    }


def summary(record: Record) -> dict[str, float]:
    """A run's metrics without its curves, sorted by name."""
    return {k: v for k, v in sorted(record.metrics.items()) if not k.startswith(CURVES)}


def mean_and_deviation(rows: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Metric to mean and sample standard deviation (0 for one row) over the rows that have it."""
    names = sorted({name for row in rows for name in row})
    columns = {name: [row[name] for row in rows if name in row] for name in names}
    return {
        name: (fmean(values), stdev(values) if len(values) > 1 else 0.0)
        for name, values in columns.items()
    }


def scores_table(
    scores: Mapping[str, tuple[float, float]], paper: Mapping[str, str | float], heading: str
) -> list[str]:
    """Lines of a Markdown table: metric, mean, deviation, and the paper's figure beside ours."""
    lines = [f"| {heading} | mean | deviation | paper |", "| --- | ---: | ---: | ---: |"]
    for name, (mean, deviation) in scores.items():
        lines.append(f"| {name} | {mean:.4f} | {deviation:.4f} | {paper.get(name, '')} |")
    if source := paper.get("source"):
        lines += ["", f"Paper: {source}. Its splits are others, so it is a neighbour, not a rival."]
    return lines


def sweep_note(
    job: Job,
    trials: Sequence[Searched],
    winner: Searched | None,
    confirmed: Mapping[str, tuple[float, float]],
) -> str:
    """A sweep's description in Markdown: the question, and the answer once there is one."""
    experiment = job.plan.experiment
    lines = [f"**Question.** {experiment.question}", ""]
    if winner is None:
        state = "No trial finished." if trials else "The sweep is running."
        return "\n".join([*lines, f"**Answer.** {state}"])
    chosen = ", ".join(
        f"{name} = {value:.4g}" if isinstance(value, float) else f"{name} = {value}"
        for name, value in winner.point.items()
    )
    goals = [goal.metric for goal in job.plan.goals]
    shown = {n: confirmed[n] for n in dict.fromkeys([*goals, *experiment.paper]) if n in confirmed}
    return "\n".join(
        [
            *lines,
            f"**Answer.** Best of {len(trials)} trials: {chosen}. Retrained over "
            f"{experiment.sweep.confirm_seeds} seeds, on the validation part of {job.data.name}; "
            "the held-out part is untouched.",
            "",
            *scores_table(shown, experiment.paper, "validation"),
        ]
    )


def log_pictures(run: Run, drawn: Sequence[Picture], folder: str) -> None:
    """Stores pictures as artifacts: `<folder>/<name>.png` and `.html`."""
    for picture in drawn:
        if picture.png is not None:
            run.log_bytes(picture.png, f"{folder}/{picture.name}.png")
        if picture.html is not None:
            run.log_text(picture.html, f"{folder}/{picture.name}.html")


def log_model_pictures(job: Job, run: Run, source: str, folder: str) -> None:
    """Pictures of the model whose weights the run `source` has, on the validation part."""
    objective = job.plan.objective
    with TemporaryDirectory() as local:
        model = objective.model.load(job.tracker.download(source, "weights", Path(local)))
    log_pictures(run, pictures(objective.task.figures, model, job.folds[0].val), folder)


def exclusive(job: Job) -> FileLock:
    """A lock that one process at a time holds for a sweep; the system frees it on a kill."""
    folder = settings.store_root() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{job.sweep}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise ConfigError(
            f"a sweep is run by one process, but {job.sweep} is being run by another. "
            "Wait for it, or end it first."
        ) from error
    return lock


def reconcile(tracker: Tracker, parent: str) -> int:
    """Ends every run below `parent` that no process works on any more; returns how many.

    Call it only under the sweep's lock. The runs keep their metrics and are continued on resume.
    """
    left = [record for record in tracker.find({}, parent=parent) if record.status == "RUNNING"]
    for record in left:
        reconcile(tracker, record.id)
        run = tracker.reopen(record.id)
        run.set_tags({"outcome": "interrupted", "reason": "its process ended before it did"})
        run.end("KILLED")
    return len(left)


def sweep_records() -> list[Record]:
    """The runs of all sweeps of all tasks in the store in use, oldest first."""
    tasks = sorted({name.partition(".")[0] for name in objective_names()})
    uri = settings.tracking_uri()
    found = [r for task in tasks for r in MlflowTracker(uri, task).find({"kind": "sweep"})]
    return sorted(found, key=lambda record: record.start_ms)


def find_sweep(sweep_id: str) -> Record:
    """The run of a sweep. Raises `UnknownName`."""
    records = sweep_records()
    for record in records:
        if record.tags["sweep"] == sweep_id:
            return record
    raise UnknownName("sweep", sweep_id, [record.tags["sweep"] for record in records])


def unfinished_sweep(experiment: str) -> Record:
    """The latest sweep of an experiment that has not finished. Raises `ConfigError`."""
    for record in reversed(sweep_records()):
        if record.tags["experiment"] == experiment and record.tags.get("outcome") != "finished":
            return record
    raise ConfigError(
        f"`resume` needs a sweep that has not finished, but {experiment!r} has none. "
        "Start one without --resume, or name a finished one by its id to add trials."
    )


def stored_plan(record: Record) -> Plan:
    """The plan of a sweep as it was stored when it began."""
    task = record.tags["objective"].partition(".")[0]
    tracker = MlflowTracker(settings.tracking_uri(), task)
    experiment = parse_yaml(tracker.read_text(record.id, "experiment.yaml"), "experiment.yaml")
    space = parse_yaml(tracker.read_text(record.id, "search_space.yaml"), "search_space.yaml")
    return plan_from(experiment, space)


def recorded_point(plan: Plan, *, sweep_id: str | None = None, run_id: str | None = None) -> Point:
    """The parameters of a sweep's winner or of a run, as a point of the plan's objective.

    Raises:
        UnknownName: No such sweep.
        ConfigError: The sweep has no winner yet, or the run no parameters.
    """
    if sweep_id is not None:
        run_id = find_sweep(sweep_id).tags.get("best_run")
        if run_id is None:
            raise ConfigError(f"a sweep's winner is known at its end, but {sweep_id} has none yet.")
    assert run_id is not None
    tracker = MlflowTracker(settings.tracking_uri(), plan.experiment.task)
    params = tracker.get(run_id).params
    if not params:
        raise ConfigError(
            f"a run's point is in its parameters, but {run_id!r} has none. Name the run of a trial."
        )
    return {name: yaml.safe_load(text) for name, text in params.items()}
