"""A sweep: experiment to parent run, to engine, to a winner confirmed over seeds.

The engine's study is the truth of the search, the tracking store the truth of the record. Both
survive a kill; resuming brings them together again.
"""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hemaml.conclude import conclude, confirm, record_the_killed, winner_of
from hemaml.core import settings
from hemaml.core.errors import ConfigError
from hemaml.core.experiment import Plan, plan_of
from hemaml.core.notify import notify
from hemaml.core.provenance import this_process
from hemaml.core.search import Change, Event, Study, Watch
from hemaml.core.sweep import POPULATION
from hemaml.core.tracker import Run
from hemaml.core.types import Point
from hemaml.course import Course, course_of, told_values
from hemaml.data.splits import split_digest, split_record
from hemaml.engines import SHARED, search_of
from hemaml.engines.moving import study_names
from hemaml.engines.optuna_engine import Searched, searched
from hemaml.engines.optuna_study import open_storage, sampler_of
from hemaml.job import Job
from hemaml.metrics import mean_and_deviation, summary
from hemaml.notes import sweep_note
from hemaml.overview import described, refresh, sweep_pages
from hemaml.record import (
    ended_on_error,
    find_sweep,
    goals_text,
    log_inputs,
    log_pictures,
    open_job,
    reconcile,
    run_tags,
)
from hemaml.registering import forget_winner, log_winner, unregistered
from hemaml.report import push_report, study_pictures
from hemaml.resuming import (
    changed_plan,
    check_not_elsewhere,
    check_same_data,
    exclusive,
    unfinished_sweep,
)
from hemaml.tracking.mlflow_tracker import MlflowTracker
from hemaml.tracking.views import trials_view, ui_address
from hemaml.trial import run_trial

if TYPE_CHECKING:
    import pandas as pd

WARM_START = "warm_start.json"
"""Artifact of a sweep that learns from earlier ones first: the names of their studies."""
HOW = {"engine", "sampler", "pruner"}
"""Tags of how a sweep searches, which a resume may change."""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a sweep found.

    Attributes:
        id: The sweep's id, for `resume` and `--resume`.
        run_id: Its run in the tracking store.
        link: A view of its trials in the MLflow UI.
        plan: The experiment and its space.
        best: The winner's point, or None where no trial finished; of a population, what its
            training began with.
        changes: Of a population: what changed on the winner's way, and when.
        values: The winner's values of the goals on validation, from the search (one seed).
        confirmed: Metric to (mean, standard deviation) over the confirmation seeds.
        searched: Every trial of the search; in a population, a value that changed is told in words.
        unregistered: Where its model was to be registered and this user may not: who does, and how.
    """

    id: str
    run_id: str
    link: str
    plan: Plan
    best: Point | None
    changes: Sequence[Change]
    values: tuple[float, ...]
    confirmed: Mapping[str, tuple[float, float]]
    searched: Sequence[Searched]
    unregistered: str = ""

    def trials(self) -> "pd.DataFrame":
        """One row a trial: number, ending, the goals, the point's parameters, seconds, run id."""
        import pandas as pd

        goals = [goal.metric for goal in self.plan.goals]
        rows = [
            {
                "trial": trial.number,
                "ending": trial.ending,
                **dict(zip(goals, trial.values or [None] * len(goals), strict=True)),
                **trial.point,
                "seconds": trial.seconds,
                "best": trial.best,
                "run_id": trial.run_id,
                "reason": trial.reason,
            }
            for trial in self.searched
        ]
        return pd.DataFrame(rows)


def sweep(
    experiment: str | Path | Plan,
    *,
    overrides: Sequence[str] = (),
    warm_start: bool = False,
    watch: Watch | None = None,
) -> SweepResult:
    """Searches an experiment's space, confirms the winner and records everything.

    With several workers, call it below `if __name__ == "__main__":`, as for any use of processes.

    Args:
        experiment: A path, or a plan that is loaded already.
        overrides: `key=value` pairs, as `--set` takes them.
        warm_start: Whether the sampler first learns from all earlier sweeps of the same space,
            objective, data and split.
        watch: Called in this process for each thing that happens.

    Raises:
        ConfigError: The experiment is wrong; nothing has started.
        DataError: The data is missing or damaged; nothing has started.
        StoreError: A store failed; `resume` goes on.
        KeyboardInterrupt: Passed on after the record is in order; `resume` goes on.
    """
    return open_sweep(experiment, overrides=overrides, warm_start=warm_start).search(watch)


def resume(
    sweep_id: str, *, overrides: Sequence[str] = (), watch: Watch | None = None
) -> SweepResult:
    """Goes on with a sweep that was interrupted or killed, as it was configured last.

    Args:
        sweep_id: The sweep's id.
        overrides: Changes of the `sweep:` section only (more trials, other workers); kept.
        watch: As in `sweep`.

    Raises:
        UnknownName: No such sweep.
        ConfigError: Another process runs it, or an override leaves the section or changes what
            its trials were compared by.
    """
    return reopen_sweep(sweep_id, overrides=overrides).search(watch)


@dataclass(frozen=True, slots=True)
class OpenSweep:
    """A sweep whose run is open and which can be searched once."""

    job: Job
    study: Study
    run: Run

    @property
    def id(self) -> str:
        """The sweep's id."""
        return self.job.sweep

    @property
    def plan(self) -> Plan:
        """The experiment and its space."""
        return self.job.plan

    def search(self, watch: Watch | None = None) -> SweepResult:
        """Runs the engine, then confirms the winner; see `sweep`."""
        tracker, run = self.job.tracker, self.run
        try:
            with described(tracker), exclusive(self.job), ended_on_error(tracker, run, self.id):
                result = self._search(watch or (lambda event: None))
        except BaseException as error:
            notify({**self._told(), "outcome": "interrupted", "reason": type(error).__name__})
            raise
        outcome = "finished" if result.best else "no_winner"
        found = {"outcome": outcome, "best": result.best, "link": result.link}
        self.job.tracker.amend(run.id).set_tags({"notified": notify({**self._told(), **found})})
        return result

    def _told(self) -> dict[str, object]:
        """What is told of this sweep whatever its end."""
        return {"event": "sweep_end", "sweep": self.id, "question": self.plan.experiment.question}

    def _search(self, watch: Watch) -> SweepResult:
        job, plan = self.job, self.plan
        assert plan.space is not None
        refresh(job.tracker)
        reconcile(job.tracker, self.run.id, self.id)
        engine, keep = plan.experiment.sweep.engine, plan.experiment.sweep.keep_models
        evaluate = partial(run_trial, job.but(keep_model=keep, carries_data=engine in SHARED))
        search = search_of(engine)
        search(evaluate, plan.space, plan.experiment.sweep, self.study, watch)
        reconcile(job.tracker, self.run.id, self.id)
        trials = searched(self.study)
        record_the_killed(job, self.run, trials)
        winner = winner_of(plan, trials)
        course: Course = []
        if winner:
            course = course_of(job.tracker, job.tracker.get(winner.run_id), winner.point)
        if winner and plan.experiment.sweep.confirm_seeds:
            watch(Event("confirming", plan.experiment.sweep.confirm_seeds, told_values(course)))
        seeds = confirm(job, self.run, course) if winner else []
        confirmed = mean_and_deviation([summary(record) for record in seeds])
        conclude(job, self.study, self.run, trials, winner, course, confirmed)
        log_pictures(self.run, study_pictures(job.tracker.get(self.run.id)), "figures")
        if seeds:
            assert winner is not None
            log_winner(job.at(winner.point), self.run, seeds[0])
        else:
            forget_winner(job.tracker, self.run)
        self.run.set_tags({"outcome": "finished" if winner else "no_winner"})
        self.run.end("FINISHED" if winner else "FAILED")
        record = job.tracker.get(self.run.id)
        push_report(record)
        return SweepResult(
            id=self.id,
            run_id=self.run.id,
            link=f"{ui_address(settings.tracking_uri())}/{record.tags['view']}",
            plan=plan,
            best=course[0].point if winner else None,
            changes=course[1:],
            values=winner.values if winner else (),
            confirmed=confirmed,
            searched=_told(job, trials) if plan.experiment.sweep.is_population else trials,
            unregistered=unregistered(record),
        )


def _told(job: Job, trials: Sequence[Searched]) -> list[Searched]:
    """Trials with what their values were on the way: their scores are of these."""
    courses = (course_of(job.tracker, job.tracker.get(t.run_id), t.point) for t in trials)
    return [replace(t, point=told_values(c)) for t, c in zip(trials, courses, strict=True)]


def open_sweep(
    experiment: str | Path | Plan, *, overrides: Sequence[str] = (), warm_start: bool = False
) -> OpenSweep:
    """Checks all that can be checked, then opens the sweep's run; see `sweep`."""
    plan = plan_of(experiment, overrides)
    if plan.space is None:
        raise ConfigError(
            f"a sweep needs a search space, but {plan.experiment.name!r} has none. Write "
            f"search_spaces/{plan.experiment.task}/{plan.experiment.name}.yaml, or use `run`."
        )
    sampler = plan.experiment.sweep.sampler
    if warm_start and sampler in ("grid", "random"):
        raise ConfigError(
            f"a warm start needs a sampler that learns, but `sampler: {sampler}` does not. "
            "Leave --warm-start out, or use tpe, gp, cmaes or nsga2."
        )
    stamp = time.strftime("%Y%m%d-%H%M%S")
    job = open_job(plan, sweep_id=f"{plan.experiment.name}-{stamp}-{secrets.token_hex(2)}")
    _check_cluster(job)
    name = f"{job.sweep}/{plan.space.digest}"
    study = study_of(job, name, _earlier_studies(job) if warm_start else ())
    open_storage(study.storage)  # fails, if it does, before anything is recorded
    sampler_of(plan.experiment.sweep, seed=0)  # likewise
    run = _open_run(job, study)
    return OpenSweep(job.but(parent=run.id), study, run)


def reopen_sweep(
    sweep_id: str | None, *, experiment: Path | None = None, overrides: Sequence[str] = ()
) -> OpenSweep:
    """Opens a sweep again, by its id or as the latest unfinished one of an experiment file.

    Raises:
        UnknownName: No such sweep.
        ConfigError: Another process runs it, an override leaves the `sweep:` section, or the data
            is no longer what the sweep began on.
    """
    if sweep_id:
        record = find_sweep(sweep_id)
    else:
        assert experiment is not None
        record = unfinished_sweep(experiment.resolve().parent.name, experiment.stem)
    job = open_job(changed_plan(record, overrides), sweep_id=record.tags["sweep"])
    check_same_data(job, record)
    _check_cluster(job)
    open_storage(settings.study_storage())  # before the record is touched, as well
    assert isinstance(job.tracker, MlflowTracker)
    warm = job.tracker.has_artifact(record.id, WARM_START)
    lent = tuple(json.loads(job.tracker.read_text(record.id, WARM_START)) if warm else ())
    study = study_of(job, record.tags["study"], lent)
    with exclusive(job):  # tells before the record is touched
        check_not_elsewhere(job.tracker.get(record.id))
        run = job.tracker.reopen(record.id)
        with ended_on_error(job.tracker, run, job.sweep):
            now = {"outcome": "running", "reason": "", "process": this_process()}
            run.set_tags(now | job.plan.experiment.sweep.model_dump(include=HOW))
            if overrides:
                run.log_text(job.plan.yaml()[0], "experiment.yaml")
    return OpenSweep(job.but(parent=run.id), study, run)


def _check_cluster(job: Job) -> None:
    """Raises `ConfigError` where nodes on several machines would share the files of one."""
    how = job.plan.experiment.sweep
    if how.engine != "ray" or how.address is None:
        return
    from hemaml.engines.ray_cluster import check_shared, connected  # Ray is slow to import

    assert isinstance(job.tracker, MlflowTracker)
    with connected(how) as nodes:
        check_shared(
            nodes,
            study_storage=settings.study_storage(),
            tracking_uri=settings.tracking_uri(),
            artifacts=job.tracker.artifact_location,
        )


def study_of(job: Job, name: str, warm_start: tuple[str, ...] = ()) -> Study:
    """Where the search of a sweep keeps its truth, under the name that its record has."""
    return Study(
        name=name,
        storage=settings.study_storage(),
        directions=tuple(goal.direction for goal in job.plan.goals),
        seed=job.plan.experiment.seed,
        warm_start=warm_start,
    )


def _open_run(job: Job, study: Study) -> Run:
    """The sweep's run with all that is known before it starts."""
    assert job.plan.space is not None
    assert isinstance(job.tracker, MlflowTracker)
    view = trials_view(job.tracker, job.plan, job.sweep)
    tags = {
        "kind": "sweep",
        "sweep": job.sweep,
        "outcome": "running",
        "study": study.name,
        "space_digest": job.plan.space.digest,
        "view": view,
        **job.plan.experiment.sweep.model_dump(include=HOW),
        "mlflow.note.content": sweep_note(job, [], {}, {}, sweep_pages(view)),
        **run_tags(job),
    }
    run = job.tracker.start(job.sweep, tags)
    with ended_on_error(job.tracker, run):
        if study.warm_start:  # MLflow's tables have 8000 characters for a tag
            run.log_text(json.dumps(study.warm_start), WARM_START)
        log_inputs(job, run, split_record(job.folds))
        run.log_dataset(job.plan.objective.task.held_out(job.data)[0], "search")
    return run


def _earlier_studies(job: Job) -> tuple[str, ...]:
    """Names of the studies of earlier sweeps that asked the same of the same data."""
    assert job.plan.space is not None
    tags = {
        "kind": "sweep",
        "space_digest": job.plan.space.digest,
        "data_digest": job.data.digest,
        "split_digest": split_digest(job.folds),
    }
    known = [r for r in job.tracker.find(tags) if r.tags["objective"] in job.plan.objectives]
    # What a population's trial scored is not of the values that its study has.
    known = [record for record in known if record.tags["pruner"] not in POPULATION]
    kept = study_names(settings.study_storage())  # a sweep that was killed early has none
    known = [record for record in known if record.tags.get("goals") == goals_text(job.plan)]
    found = tuple(record.tags["study"] for record in known if record.tags["study"] in kept)
    if not found:
        raise ConfigError(
            "a warm start needs an earlier sweep of the same objective, space, data, split and "
            f"goals, but {job.plan.experiment.task!r} has none. Leave --warm-start out."
        )
    return found
