"""One objective at one point, over its folds, as one tracked run.

Cross-validation lives here: the folds' fits advance in lockstep, so that a report to the engine is
the mean over all folds and pruning sees what the final score will be made of.
"""

import logging
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from statistics import fmean, median

from hemaml.core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from hemaml.core.errors import (
    ConfigError,
    DataError,
    Diverged,
    OutOfMemory,
    StoreError,
    UnknownName,
)
from hemaml.core.experiment import Plan
from hemaml.core.identity import trial_key
from hemaml.core.memory import PeakMemory
from hemaml.core.objective import Context, Model, Step
from hemaml.core.search import Assigned, Ending, Outcome, Report, Stopped
from hemaml.core.seeding import derive_seed, seed_everything
from hemaml.core.task import Fold
from hemaml.core.tracker import Record, Run, Status
from hemaml.core.types import Frozen
from hemaml.data.splits import is_leaky, split_digest
from hemaml.job import Job

logger = logging.getLogger(__name__)

STATUS: dict[Ending, Status] = {
    "finished": "FINISHED",
    "pruned": "KILLED",
    "over_budget": "KILLED",
    "interrupted": "KILLED",
    "diverged": "FAILED",
    "out_of_memory": "FAILED",
    "failed": "FAILED",
}
"""How an ending shows in the tracking store; the tag `outcome` has the ending itself."""
TIMED_IMAGES = 8


def run_trial(job: Job, assigned: Assigned, report: Report) -> Outcome:
    """Runs one trial, or takes over the result of an equal one, and records how it ended.

    A run of this number that was interrupted is continued from its last checkpoint.

    Raises:
        StoreError: The tracking store or the disk cannot be used: no trial could succeed.
        DataError: The data cannot be read.
        ConfigError: The sweep optimises a metric that does not exist.
    """
    params = job.plan.params(assigned.point)
    seed, folds = job.seed_of(assigned), job.folds_of(assigned)
    key = trial_key(
        objective=job.plan.experiment.objective,
        params=params,
        data_digest=job.data.digest,
        split_digest=split_digest(folds),
        seed=seed,
    )
    mine = _run_of(job, assigned, key)
    if mine is not None and mine.tags.get("outcome") == "finished":
        return _recorded(job, mine, key)  # its end was not heard by the study
    num_params = job.plan.objective.size(params)
    run = job.tracker.reopen(mine.id) if mine else _start(job, assigned, params, folds, seed, key)
    limit = job.plan.experiment.sweep.max_params
    excess = None if limit is None else num_params - limit
    if excess is not None and excess > 0:
        reason = f"{num_params} parameters, {excess} above `max_params: {limit}`"
        run.log_metrics({"params_total": num_params})
        return _end(run, Outcome("over_budget", run_id=run.id, key=key, reason=reason), excess)
    if (twin := _finished_twin(job, key)) is not None:
        return replace(_take_over(job, run, twin, key), excess=excess)
    try:
        outcome = _Training(job, params, folds, seed, run, report).run(key, num_params)
    except BaseException:  # Ctrl-C, or a fault that ends the sweep: to be continued
        with suppress(StoreError):
            _end(run, Outcome("interrupted", reason="its process was told to end"), excess)
        raise
    return _end(run, outcome, excess)


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
    return next(
        (
            record
            for record in job.tracker.find(tags, limit=20)
            if not record.tags.get("reused_from")
            and (not job.keep_model or record.tags.get("kind") == job.kind)
        ),
        None,
    )


def _start(
    job: Job, assigned: Assigned, params: Frozen, folds: Sequence[Fold], seed: int, key: str
) -> Run:
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
        "outcome": "running",
        **job.tags,
    }
    name = f"{experiment.name}-{job.kind}-{assigned.number:04d}"
    run = job.tracker.start(name, {k: v for k, v in tags.items() if v != ""}, job.parent)
    run.log_params(params.model_dump(mode="json", by_alias=True))
    for index, fold in enumerate(folds):
        suffix = f"-{index}" if len(folds) > 1 else ""
        run.log_dataset(fold.train, f"train{suffix}")
        run.log_dataset(fold.val, f"validation{suffix}")
    return run


def _recorded(job: Job, record: Record, key: str) -> Outcome:
    return Outcome(
        "finished",
        _values(job.plan, record.metrics),
        run_id=record.id,
        key=key,
        reused_from=record.tags.get("reused_from", ""),
    )


def _take_over(job: Job, run: Run, twin: Record, key: str) -> Outcome:
    """Ends a run with the result of an equal trial, and says whose it is."""
    summary = {name: value for name, value in twin.metrics.items() if not _is_curve(name)}
    run.log_metrics(summary)
    run.set_tags({"reused_from": twin.id})
    outcome = Outcome(
        "finished", _values(job.plan, summary), run_id=run.id, key=key, reused_from=twin.id
    )
    return _end(run, outcome, None)


def _end(run: Run, outcome: Outcome, excess: int | None) -> Outcome:
    tags = {"outcome": outcome.ending, **({"reason": outcome.reason} if outcome.reason else {})}
    run.set_tags(tags)
    run.end(STATUS[outcome.ending])
    return replace(outcome, excess=excess)


def _values(plan: Plan, summary: Mapping[str, float]) -> tuple[float, ...]:
    """The goals' values of a finished trial."""
    for goal in plan.goals:
        if goal.metric not in summary:
            raise UnknownName("metric to optimise", goal.metric, summary)
    return tuple(summary[goal.metric] for goal in plan.goals)


def _is_curve(name: str) -> bool:
    return name.startswith(("val/", "train/", "time/"))


class _Training:
    """The fits of one trial and what is kept of them."""

    def __init__(
        self,
        job: Job,
        params: Frozen,
        folds: Sequence[Fold],
        seed: int,
        run: Run,
        report: Report,
    ) -> None:
        self.job = job
        self.params = params
        self.folds = folds
        self.seed = seed
        self.run_record = run
        self.report = report
        self.folder = job.scratch / run.id
        self.checkpoint = load_checkpoint(self.folder / "checkpoint.pt")
        self.best = dict(self.checkpoint.best) if self.checkpoint else {}
        self.best_step = self.checkpoint.best_step if self.checkpoint else -1
        self.best_folds = list(self.checkpoint.best_folds) if self.checkpoint else []
        self.seconds = self.checkpoint.seconds if self.checkpoint else 0.0
        self.fold_runs = self._open_fold_runs()
        self.epoch_s: list[float] = []

    def run(self, key: str, num_params: int) -> Outcome:
        """Trains to the end or to what ends it earlier; an unforeseen error keeps its traceback."""
        import torch

        outcome = Outcome("finished", run_id=self.run_record.id, key=key)
        try:
            with PeakMemory(self.job.device) as peak:
                self._fit()
            summary = self._summary(num_params) | {"peak_memory_mb": peak.mb}
            self.run_record.log_metrics(summary)
            self._keep_model()
            outcome = replace(outcome, values=_values(self.job.plan, summary))
        except Stopped:
            outcome = replace(outcome, ending="pruned", reason="stopped by the pruner")
        except Diverged as error:
            outcome = replace(outcome, ending="diverged", reason=str(error))
        except (OutOfMemory, MemoryError, torch.OutOfMemoryError) as error:
            reason = str(error) or "no memory left"
            outcome = replace(outcome, ending="out_of_memory", reason=reason)
        except (StoreError, DataError, ConfigError):
            raise  # no trial of this sweep could succeed
        except OSError as error:
            raise StoreError(
                f"the disk must take a trial's files, but {self.folder} gave: {error}. "
                "Free space there, then go on with --resume."
            ) from error
        except Exception as error:
            logger.exception("trial failed")
            self.run_record.log_text(traceback.format_exc(), "traceback.txt")
            reason = f"{type(error).__name__}: {error}"
            outcome = replace(outcome, ending="failed", reason=reason[:1000])
        for fold_run, scores in zip(self.fold_runs, self.best_folds, strict=False):
            fold_run.log_metrics(scores)
        for fold_run in self.fold_runs:
            fold_run.set_tags({"outcome": outcome.ending})
            fold_run.end(STATUS[outcome.ending])
        shutil.rmtree(self.folder, ignore_errors=True)
        return outcome

    def _open_fold_runs(self) -> list[Run]:
        """One run a fold below the trial's, or none for a single split."""
        job, parent = self.job, self.run_record.id
        if len(self.folds) == 1:
            return []
        found = {
            r.tags.get("fold"): r.id for r in job.tracker.find({"kind": "fold"}, parent=parent)
        }
        tags = {"kind": "fold", "sweep": job.sweep, "outcome": "running"}
        return [
            job.tracker.reopen(found[str(i)])
            if str(i) in found
            else job.tracker.start(f"fold-{i}", {**tags, "fold": i}, parent)
            for i in range(len(self.folds))
        ]

    def _fit(self) -> None:
        seed_everything(self.seed)
        objective, job = self.job.plan.objective, self.job
        states = self.checkpoint.states if self.checkpoint else [None] * len(self.folds)
        fits = [
            objective.fit(
                self.params,
                fold,
                Context(job.device, derive_seed(self.seed, "fold", i), job.cache, state),
            )
            for i, (fold, state) in enumerate(zip(self.folds, states, strict=True))
        ]
        logged = self._last_logged()
        started, saved = time.monotonic(), time.monotonic()
        before = self.seconds
        for steps in _lockstep(fits):
            self.seconds = before + time.monotonic() - started
            self._take(steps, log=_index(steps) > logged)
            if time.monotonic() - saved >= job.plan.experiment.sweep.checkpoint_seconds:
                self._save(steps)
                saved = time.monotonic()

    def _take(self, steps: Sequence[Step], *, log: bool) -> None:
        """Logs a validation, keeps it if it is the best, then reports: the engine may stop here."""
        metrics, index = _mean(steps), _index(steps)
        task = self.job.plan.objective.task
        if log:
            self.run_record.log_metrics(_curves(metrics), index)
            for fold_run, step in zip(self.fold_runs, steps, strict=False):
                fold_run.log_metrics(_curves(step.metrics), index)
        if "time/epoch_s" in metrics:
            self.epoch_s.append(metrics["time/epoch_s"])
        value = metrics[task.primary]
        if value != value:
            raise Diverged(f"{task.primary} must be a number, but it is NaN at validation {index}.")
        sign = 1 if task.direction == "maximize" else -1
        if not self.best or sign * value > sign * self.best[task.primary]:
            self.best = _scores(metrics)
            self.best_step = index
            self.best_folds = [_scores(step.metrics) for step in steps]
            for number, step in enumerate(steps):
                folder = self.folder / f"best-{number}"
                folder.mkdir(parents=True, exist_ok=True)
                step.model.save(folder)
        goal = self.job.plan.goals[0].metric
        self.report(index, metrics.get(goal, value))

    def _save(self, steps: Sequence[Step]) -> None:
        for run in (self.run_record, *self.fold_runs):
            run.flush()  # a curve must not have a gap after a resume
        states = [step.state() for step in steps]
        checkpoint = Checkpoint(
            _index(steps), states, self.best_step, self.best, self.best_folds, self.seconds
        )
        save_checkpoint(self.folder / "checkpoint.pt", checkpoint)

    def _last_logged(self) -> int:
        if self.checkpoint is None:
            return -1
        primary = self.job.plan.objective.task.primary
        return self.job.tracker.last_step(self.run_record.id, f"val/{primary}")

    def _summary(self, num_params: int) -> dict[str, float]:
        folder = self.folder / "best-0"
        model = self.job.plan.objective.model.load(folder)
        return {
            **self.best,
            "best_step": self.best_step,
            "params_total": num_params,
            "params_trainable": model.num_trainable,
            "model_bytes": sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()),
            "ms_per_image": _ms_per_image(model, self.folds[0]),
            "train_s": self.seconds,
            **({"epoch_s": median(self.epoch_s)} if self.epoch_s else {}),
        }

    def _keep_model(self) -> None:
        if self.job.keep_model:
            self.run_record.log_folder(self.folder / "best-0", "weights")


def _lockstep(fits: Sequence[Iterator[Step]]) -> Iterator[list[Step]]:
    """The latest step of every fit, as long as one goes on; a fit that ended keeps its last."""
    latest: list[Step] = [step for fit in fits if (step := next(fit, None))]
    if len(latest) < len(fits):
        raise Diverged("a fit must validate at least once, but one ended without a step.")
    moved = True
    while moved:
        yield list(latest)
        moved = False
        for i, fit in enumerate(fits):
            if step := next(fit, None):
                latest[i], moved = step, True


def _index(steps: Sequence[Step]) -> int:
    return max(step.index for step in steps)


def _scores(metrics: Mapping[str, float]) -> dict[str, float]:
    """The task's scores among a step's metrics."""
    return {name: value for name, value in metrics.items() if not _is_curve(name)}


def _curves(metrics: Mapping[str, float]) -> dict[str, float]:
    """A step's metrics under the names of their curves."""
    return {name if _is_curve(name) else f"val/{name}": v for name, v in metrics.items()}


def _mean(steps: Sequence[Step]) -> dict[str, float]:
    names = steps[0].metrics
    return {name: fmean(step.metrics[name] for step in steps) for name in names}


def _ms_per_image(model: Model, fold: Fold) -> float:
    """Milliseconds for one image on the CPU, alone and nothing cached: median of a few."""
    times = []
    for image in fold.val.images[:TIMED_IMAGES]:
        started = time.perf_counter()
        model.predict([image])
        times.append((time.perf_counter() - started) * 1000)
    return median(times)
