"""How a search becomes an answer: the winner, confirmed over seeds, and what the record says."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

from hemaml.core.experiment import Plan
from hemaml.core.search import Assigned, Study
from hemaml.core.seeding import derive_seed
from hemaml.core.tracker import Record, Run
from hemaml.course import Course, told_values
from hemaml.engines.optuna_engine import Searched, ranked
from hemaml.engines.study_figures import study_figures
from hemaml.engines.workers import evaluate_all
from hemaml.job import Job
from hemaml.metrics import mean_metrics, replace_metrics
from hemaml.notes import sweep_note
from hemaml.overview import sweep_pages
from hemaml.record import log_model_pictures, log_pictures
from hemaml.tracking.mlflow_tracker import MlflowTracker
from hemaml.tracking.views import compare_page
from hemaml.trial import run_trial

COMPARED = 3
"""Trials that a ready-made comparison puts side by side."""
PICTURED = "pictured"
"""Tag of a trial whose model has its pictures."""
COUNTS = "trials/"
SAME_FOR_ALL_SEEDS = ("best_step", "model_bytes", "params_total", "params_trainable")


def record_the_killed(job: Job, run: Run, trials: Sequence[Searched]) -> None:
    """Trials that killed their workers left a run that says interrupted; the study knows more."""
    for trial in trials:
        if trial.ending in ("failed", "out_of_memory") and not trial.run_id:
            tags = {"kind": "trial", "trial": str(trial.number)}
            for record in job.tracker.find(tags, parent=run.id):
                killed = job.tracker.reopen(record.id)
                killed.set_tags({"outcome": trial.ending, "reason": trial.reason})
                killed.end("FAILED")


def winner_of(plan: Plan, trials: Sequence[Searched]) -> Searched | None:
    """The best trial; of a Pareto front, the one that is best in the first goal."""
    front = [trial for trial in trials if trial.best]
    return next(iter(ranked(front, plan.goals[0].direction)), None)


def confirm(job: Job, run: Run, course: Course) -> list[Record]:
    """Retrains the winner over seeds that the search did not see; the runs that finished.

    Where its values changed on the way, they change at the same validations again.
    """
    settings_of = job.plan.experiment.sweep
    num, seed = settings_of.confirm_seeds, job.plan.experiment.seed
    begin, *changes = course
    trials = [
        Assigned(i, begin.point, derive_seed(seed, "confirm", i), tuple(changes))
        for i in range(num)
    ]
    retrain = partial(run_trial, job.but(kind="confirm", keep_model=True))
    outcomes = evaluate_all(retrain, trials, settings_of.workers)
    finished = [outcome for outcome in outcomes if outcome.ending == "finished"]
    missing = num - len(finished)
    told = f"{missing} of {num} seeds did not finish" if missing else ""
    run.set_tags({"unconfirmed": told})
    used = {outcome.run_id for outcome in outcomes}
    for record in job.tracker.find({"kind": "confirm"}, parent=run.id):
        if record.id not in used:  # of a winner that a resumed search has beaten
            job.tracker.amend(record.id).set_tags({"kind": "superseded"})
    return [job.tracker.get(outcome.run_id) for outcome in finished]


def conclude(
    job: Job,
    study: Study,
    run: Run,
    trials: Sequence[Searched],
    winner: Searched | None,
    course: Course,
    confirmed: Mapping[str, tuple[float, float]],
) -> None:
    """Writes the answer into the sweep's run: metrics, figures, description."""
    counts = Counter(trial.ending for trial in trials)
    run.log_metrics({f"{COUNTS}{ending}": count for ending, count in counts.items()})
    log_pictures(run, study_figures(study, job.plan), "figures")
    if job.plan.experiment.sweep.keep_models:
        _picture_trials(job, trials)
    scores = {n: v for n, v in mean_metrics(confirmed).items() if not _says_nothing(n)}
    replace_metrics(job.tracker, run, scores, but=COUNTS)
    best: dict[str, object] = {}
    point = told_values(course)
    if winner is not None:  # tags, since a resumed sweep may find a better one
        best = {"best_trial": winner.number, "best_run": winner.run_id}
        best |= {"objective": job.plan.at(winner.point).experiment.objective}
        best |= {f"best.{name}": point.get(name, "") for name in job.plan.space or ()}
    assert isinstance(job.tracker, MlflowTracker)
    compared = [trial.run_id for trial in ranked(trials, job.plan.goals[0].direction)[:COMPARED]]
    compare = compare_page(job.tracker, compared) if compared else ""
    pages = sweep_pages(job.tracker.get(run.id).tags["view"], compare)
    note = sweep_note(job, trials, point, confirmed, pages)
    run.set_tags({**best, "compare": compare, "mlflow.note.content": note})


def _picture_trials(job: Job, trials: Sequence[Searched]) -> None:
    """Pictures of the models that trials have kept, each in its trial's run, once."""
    for trial in trials:
        record = job.tracker.get(trial.run_id) if trial.ending == "finished" else None
        if record is None or PICTURED in record.tags:
            continue
        run = job.tracker.amend(record.id)
        source = record.tags.get("reused_from", record.id)
        log_model_pictures(job.at(trial.point), run, source, "pictures")
        run.set_tags({PICTURED: "true"})


def _says_nothing(name: str) -> bool:
    """Whether it is the deviation over seeds of a size or of an interval's end."""
    of = name.removesuffix("_std")
    return of != name and (of in SAME_FOR_ALL_SEEDS or of.startswith("ci/"))
