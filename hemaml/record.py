"""What the verbs share: a job on the stores in use, and how results are written and found again."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import yaml
from filelock import FileLock

from hemaml.core import settings
from hemaml.core.documents import canonical_json, parse_yaml
from hemaml.core.errors import ConfigError, StoreError, UnknownName
from hemaml.core.experiment import Plan, plan_from
from hemaml.core.objective import objective_names
from hemaml.core.provenance import environment, git_state, is_gone, this_process
from hemaml.core.search import Ending
from hemaml.core.tracker import Record, Run, Tracker, is_registered
from hemaml.core.types import Point
from hemaml.course import FILE, Course, course_of
from hemaml.data.splits import is_leaky, split_digest, split_kind
from hemaml.explain import Picture, pictures
from hemaml.job import Job
from hemaml.tracking.mlflow_tracker import MlflowTracker
from hemaml.tracking.views import run_page, ui_address
from hemaml.training import STATUS
from hemaml.trial import reason_of

PARTS = "parts.json"
"""File beside a model's pictures: its scores by class and by group (patient, case or slide)."""
TOP_KINDS = ("sweep", "evaluation", "table", "transfer", "run", "promotion", "rollback")
"""What stands at the top of a task's runs."""


def open_job(plan: Plan, *, sweep_id: str = "") -> Job:
    """A job on the stores that the settings name.

    Raises:
        DataError: The data cannot be read or split.
        ConfigError: The device that is asked for is absent.
        StoreError: The tracking store cannot be used.
    """
    tracker = MlflowTracker(settings.tracking_uri(), plan.experiment.task)
    job = Job(
        plan=_with_fixed_versions(plan, tracker),
        open_tracker=partial(MlflowTracker, tracker.uri, tracker.task, met=True),
        scratch=settings.store_root() / "scratch",
        cache_folder=settings.cache_root(),
        sweep=sweep_id,
    )
    _ = job.folds, job.device, job.tracker  # fail before anything is recorded
    return job


def _with_fixed_versions(plan: Plan, tracker: MlflowTracker) -> Plan:
    """The plan with each `models:/name@alias` as the version it means now, fixed or searched.

    An alias may move while a sweep runs, or before it is resumed; a trial's key must not lie.
    """

    def fixed(value: Any) -> Any:
        match value:
            case str() if is_registered(value):
                return tracker.fixed_version(value)
            case dict():
                return {name: fixed(inner) for name, inner in value.items()}
            case list() | tuple():
                return [fixed(inner) for inner in value]
        return value

    document = plan.experiment.document()
    given = {name: document[name] for name in ("params", "sweep")}
    given["space"] = plan.space.model_dump(mode="json") if plan.space else None
    told = fixed(given)
    if told == given:
        return plan
    space = told.pop("space")
    return plan_from({**document, **told}, space)


def run_tags(job: Job) -> dict[str, object]:
    """Tags that say what a top-level run is about and what code made it."""
    experiment = job.plan.experiment
    return {
        "question": experiment.question,
        "goals": goals_text(job.plan),
        **_paper_tags(job),
        "experiment": experiment.name,
        "objective": experiment.objective,
        "data": job.data.name,
        "data_digest": job.data.digest,
        "classes": json.dumps(job.data.classes),
        "held_out_digest": job.plan.objective.task.held_out(job.data)[1].digest,
        "split_digest": split_digest(job.folds),
        "split.kind": split_kind(job.folds),
        "split.leaky": str(is_leaky(job.data, experiment.split)).lower(),
        "seed": experiment.seed,
        "process": this_process(),
        **git_state(),
    }


def goals_text(plan: Plan) -> str:
    """The goals as a tag has them."""
    return canonical_json([goal.model_dump() for goal in plan.goals])


def _paper_tags(job: Job) -> dict[str, object]:
    """What the paper reports of the goals, as `paper.dice`."""
    paper = job.plan.experiment.paper
    return {f"paper.{g.metric}": paper[g.metric] for g in job.plan.goals if g.metric in paper}


def log_pictures(run: Run, drawn: Sequence[Picture], folder: str) -> None:
    """Stores pictures as artifacts: `<folder>/<name>.png` and `.html`."""
    for picture in drawn:
        if picture.png is not None:
            run.log_bytes(picture.png, f"{folder}/{picture.name}.png")
        if picture.html is not None:
            run.log_text(picture.html, f"{folder}/{picture.name}.html")


def page(job: Job, run_id: str) -> str:
    """Where the MLflow UI shows a run."""
    assert isinstance(job.tracker, MlflowTracker)
    return f"{ui_address(job.tracker.uri)}/{run_page(job.tracker, run_id)}"


def log_inputs(job: Job, run: Run, split: dict[str, object]) -> None:
    """Stores what is needed to do it again: both files in force, the split, the environment."""
    experiment_yaml, space_yaml = job.plan.yaml()
    run.log_text(experiment_yaml, "experiment.yaml")
    run.log_text(space_yaml, "search_space.yaml")
    run.log_text(json.dumps(split, indent=1), "split.json")
    run.log_text(json.dumps(environment(), indent=1), "environment.json")


def log_model_pictures(job: Job, run: Run, source: str, folder: str) -> None:
    """Pictures, and scores by class and group, of the model whose weights the run `source` has.

    On the validation part of the first fold.
    """
    objective, val = job.plan.objective, job.folds[0].val
    with TemporaryDirectory() as local:
        model = objective.model.load(job.tracker.download(source, "weights", Path(local)))
    names = objective.task.figures + objective.figures
    log_pictures(run, pictures(names, model, val), folder)
    parts = {
        "by_class": objective.task.by_class(model, val),
        "by_group": objective.task.by_group(model, val),
    }
    run.log_text(json.dumps(parts, indent=1), f"{folder}/{PARTS}")


def lock(name: str) -> FileLock:
    """A lock for a `with`, held by one process of this store at a time; a kill frees it."""
    folder = settings.store_root() / "locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"a lock needs a folder that can be written to, but {folder} gave: {error}. "
            "Start in another one."
        ) from error
    return FileLock(folder / f"{name}.lock")


def at_rest(record: Record) -> bool:
    """Whether no process works on a top-level run, as far as can be known from here."""
    return record.status != "RUNNING" or is_gone(record.tags["process"])


def left_running(tracker: Tracker, parent: str, sweep_id: str = "") -> list[Record]:
    """Runs below `parent` that say RUNNING; with a sweep's id, its fold runs as well."""
    found = tracker.find({}, parent=parent)
    if sweep_id:
        found += tracker.find({"kind": "fold", "sweep": sweep_id})
    return [record for record in found if record.status == "RUNNING"]


def abandoned(tracker: Tracker) -> list[Record]:
    """Runs that say RUNNING though the process of this host that wrote them has ended.

    Top-level runs; what lies below them goes with them.
    """
    found = [run for kind in TOP_KINDS for run in tracker.find({"kind": kind})]
    return [run for run in found if run.status == "RUNNING" and is_gone(run.tags["process"])]


def end_abandoned(tracker: Tracker, record: Record) -> None:
    """Ends an abandoned run and all below it; what they logged is kept."""
    sweep_id = record.tags.get("sweep", "")
    for left in [*left_running(tracker, record.id, sweep_id), record]:
        _end_left(tracker, left)


def reconcile(tracker: Tracker, parent: str, sweep_id: str = "") -> int:
    """Ends every run below `parent` that no process works on any more; returns how many.

    Call it only under the sweep's lock, or where no process is left. The runs keep their metrics
    and are continued on resume; a run whose outcome is recorded only gets the status that belongs
    to it.
    """
    left = left_running(tracker, parent, sweep_id)
    for record in left:
        _end_left(tracker, record)
    return len(left)


def _end_left(tracker: Tracker, record: Record) -> None:
    run = tracker.reopen(record.id)
    outcome = record.tags.get("outcome")
    if outcome not in STATUS:
        outcome = "interrupted"
        run.set_tags({"outcome": outcome, "reason": "its process ended before it did"})
    run.end(STATUS[cast(Ending, outcome)])


@contextmanager
def ended_on_error(tracker: Tracker, run: Run, sweep_id: str = "") -> Iterator[None]:
    """Ends a run, and what is left below it, as interrupted when anything goes wrong inside."""
    try:
        yield
    except BaseException as error:
        with suppress(StoreError):  # the fault itself, often
            reconcile(tracker, run.id, sweep_id)
            run.set_tags({"outcome": "interrupted", "reason": reason_of(error)})
            run.end("KILLED")
        raise


def trackers() -> list[MlflowTracker]:
    """One for each task, on the store in use."""
    tasks = sorted({name.partition(".")[0] for name in objective_names()})
    return [MlflowTracker(settings.tracking_uri(), task) for task in tasks]


def sweep_records() -> list[Record]:
    """The runs of all sweeps of all tasks in the store in use, oldest first."""
    found = [record for tracker in trackers() for record in tracker.find({"kind": "sweep"})]
    return sorted(found, key=lambda record: record.start_ms)


def find_sweep(sweep_id: str) -> Record:
    """The run of a sweep. Raises `UnknownName`."""
    records = sweep_records()
    for record in records:
        if record.tags["sweep"] == sweep_id:
            return record
    raise UnknownName("sweep", sweep_id, [record.tags["sweep"] for record in records])


def stored_plan(record: Record) -> Plan:
    """The plan of a sweep or a run as its record has it.

    Raises:
        ConfigError: The run is not of hemaml, or a part of something that has the plan.
    """
    kind = record.tags.get("kind")
    if "objective" not in record.tags or kind in ("trial", "confirm", "fold"):
        raise ConfigError(
            "an experiment is kept by sweeps and by runs of `hemaml run`, but "
            f"{record.name} ({record.id}) is {f'a {kind} run' if kind else 'not of hemaml'}. "
            "Name one of those."
        )
    task = record.tags["objective"].partition(".")[0]
    tracker = MlflowTracker(settings.tracking_uri(), task)
    experiment = parse_yaml(tracker.read_text(record.id, "experiment.yaml"), "experiment.yaml")
    space = parse_yaml(tracker.read_text(record.id, "search_space.yaml"), "search_space.yaml")
    return plan_from(experiment, space)


def recorded_point(
    plan: Plan,
    *,
    sweep_id: str | None = None,
    run_id: str | None = None,
    keep: Sequence[str] = (),
) -> Point:
    """The parameters of a sweep's winner or of a run, as a point of the plan's objective.

    See `recorded_course`.

    Raises:
        ConfigError: Likewise, and where the values changed on the way.
    """
    course = recorded_course(plan, sweep_id=sweep_id, run_id=run_id, keep=keep)
    if len(course) > 1:
        raise ConfigError(
            f"a point has one value a parameter, but those of {sweep_id or run_id} changed on the "
            f"way, as its {FILE} tells. Take `recorded_course`, which has the changes."
        )
    return course[0].point


def recorded_course(
    plan: Plan,
    *,
    sweep_id: str | None = None,
    run_id: str | None = None,
    keep: Sequence[str] = (),
) -> Course:
    """The parameters of a sweep's winner or of a run, and each change of them on the way.

    Args:
        plan: What the point is for.
        sweep_id: A sweep that has a winner; or
        run_id: A run that has parameters.
        keep: Parameters that the plan fixes and the record shall not replace.

    Raises:
        UnknownName: No such sweep.
        ConfigError: Both or neither are given; the sweep has no winner yet, the run no parameters
            or another objective.
    """
    if (sweep_id is None) == (run_id is None):
        raise ConfigError(
            f"a point is named once, but got the sweep {sweep_id!r} and the run {run_id!r}: give "
            "one of --sweep and --run."
        )
    if sweep_id is not None:
        run_id = find_sweep(sweep_id).tags.get("best_run")
        if run_id is None:
            raise ConfigError(f"a sweep's winner is known at its end, but {sweep_id} has none yet.")
    assert run_id is not None
    tracker = MlflowTracker(settings.tracking_uri(), plan.experiment.task)
    record = tracker.get(run_id)
    if record.tags.get("objective") not in plan.objectives:
        raise ConfigError(
            f"a point belongs to one objective, {' or '.join(plan.objectives)} here, but the run "
            f"{run_id} has {record.tags.get('objective')!r}."
        )
    if not record.params:
        raise ConfigError(
            f"a run's point is in its parameters, but {run_id!r} has none. Name the run of a trial."
        )
    point = {n: yaml.safe_load(text) for n, text in record.params.items()}
    course = course_of(tracker, record, {})
    return [
        replace(change, point={n: v for n, v in (point | change.point).items() if n not in keep})
        for change in course
    ]
