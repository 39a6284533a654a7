"""The fits of one trial, one a fold, in lockstep: logged, kept, reported, checkpointed.

A report to the engine is the mean over all folds, so pruning sees what the final score will be
made of.
"""

import logging
import math
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from statistics import median

from hemaml.core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from hemaml.core.errors import Diverged, HemamlError, OutOfMemory, StoreError, UnknownName
from hemaml.core.experiment import MEASURED, SUMMARY, Plan
from hemaml.core.gates import BY_CLASS, BY_GROUP
from hemaml.core.memory import PeakMemory
from hemaml.core.objective import Context, Model, State, Step
from hemaml.core.predictions import LIVE, NUM_IMAGES, LivePredictions, ms_per_image
from hemaml.core.search import Assigned, Change, Ending, Exploit, Outcome, Report, Stopped
from hemaml.core.seeding import derive_seed, seed_everything
from hemaml.core.task import Fold
from hemaml.core.tracker import Run, Status
from hemaml.core.types import Float32Array, UInt8Array
from hemaml.course import from_plain, log_course, plain
from hemaml.data.problems import BadFile
from hemaml.explain import measurements
from hemaml.job import Job
from hemaml.lockstep import Turns, curves_of, index_of, lockstep, mean_of, scores_of
from hemaml.ops.resampling import interval_metrics

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
ORIGIN = "weights.origin"
"""Tag of a run that keeps its model: what its training began from, in words."""
CHECKPOINT = "checkpoint.pt"


class GoalError(UnknownName):
    """A goal or gate that is neither a score nor in the summary: wrong for every trial."""


class Training:
    """The fits of one trial and what is kept of them.

    Args:
        job: What the trial belongs to.
        assigned: The trial.
        folds: What to fit on, in lockstep.
        seed: Of the trial.
        run: Written while it trains; not ended here.
        report: Called after each validation.
        resumed: Whether the run has been written before.
    """

    def __init__(
        self,
        job: Job,
        assigned: Assigned,
        folds: Sequence[Fold],
        seed: int,
        run: Run,
        report: Report,
        *,
        resumed: bool,
    ) -> None:
        self.job = job
        self.resumed = resumed
        self.folds = folds
        self.seed = seed
        self.run_record = run
        self.report = report
        self.folder = job.scratch / run.id
        self.checkpoint = load_checkpoint(self.folder / CHECKPOINT)
        self.best = dict(self.checkpoint.best) if self.checkpoint else {}
        self.best_step = self.checkpoint.best_step if self.checkpoint else -1
        self.best_folds = list(self.checkpoint.best_folds) if self.checkpoint else []
        self.seconds = self.checkpoint.seconds if self.checkpoint else 0.0
        self.course = [Change(-1, assigned.point)]
        if self.checkpoint:
            self.course = from_plain(self.checkpoint.course)
            log_course(run, self.course)  # which a kill may have prevented
        self.to_come = list(assigned.changes[len(self.course) - 1 :])
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
            if self.job.keep_model:
                self._tag_origin()
                self._log_intervals()
                self._log_measurements()
                self.run_record.log_folder(self.folder / "best-0", "weights")
                self.run_record.log_bytes(self._live_file(0).read_bytes(), LIVE)
            outcome = replace(outcome, values=goal_values(self.job.plan, summary))
        except Stopped:
            outcome = replace(outcome, ending="pruned", reason="stopped by the pruner")
        except Diverged as error:
            outcome = replace(outcome, ending="diverged", reason=str(error))
        except (OutOfMemory, MemoryError, torch.OutOfMemoryError) as error:
            reason = str(error) or "no memory left"
            outcome = replace(outcome, ending="out_of_memory", reason=reason)
        except (StoreError, GoalError, BadFile):  # no trial of this sweep could succeed
            self._end_folds("interrupted")
            raise
        except HemamlError as error:
            outcome = replace(outcome, ending="failed", reason=str(error)[:1000])
        except Exception as error:
            logger.exception("trial failed")
            self.run_record.log_text(traceback.format_exc(), "traceback.txt")
            reason = f"{type(error).__name__}: {error}"
            outcome = replace(outcome, ending="failed", reason=reason[:1000])
        except BaseException:  # Ctrl-C
            self._end_folds("interrupted")
            raise
        for fold_run, scores in zip(self.fold_runs, self.best_folds, strict=False):
            fold_run.log_metrics(scores)
        self._end_folds(outcome.ending)
        return outcome

    def _end_folds(self, ending: Ending) -> None:
        with suppress(StoreError) if ending == "interrupted" else nullcontext():
            for fold_run in self.fold_runs:
                fold_run.set_tags({"outcome": ending})
                fold_run.end(STATUS[ending])

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
        logged, before = self._last_logged(), self.seconds
        started = self.saved = time.monotonic()
        turns = self._turns(self.checkpoint.states if self.checkpoint else None)
        # A fold whose fit ends with a validation could not go on from it, while the others could:
        # so the states of several are kept once all fits have gone on.
        held: Checkpoint | None = None
        while turn := next(turns, None):
            steps, whole = turn
            self.seconds = before + time.monotonic() - started
            self._take(steps, log=index_of(steps) > logged)
            if held and whole:
                self._save(held)
                held = None
            changed = self._change(steps) if whole else None  # first: the checkpoint has it
            if whole and self._is_due(index_of(steps)):
                held = self._checkpoint(index_of(steps), [step.state() for step in steps])
                if len(steps) == 1:
                    self._save(held)
                    held = None
            if other := self._report(steps) or changed:
                turns, held = other, None

    def _turns(self, states: Sequence[State] | None) -> Turns:
        """The fits in lockstep, from these states on, with the parameters that hold now."""
        objective, job = self.job.plan.objective, self.job
        params = job.plan.params(self.course[-1].point)
        fits = [
            objective.fit(
                params,
                fold,
                Context(
                    job.device,
                    derive_seed(self.seed, "fold", i),
                    job.cache,
                    states[i] if states else None,
                    job.tracker.model_weights,
                    job.tracker.objective_of,
                ),
            )
            for i, fold in enumerate(self.folds)
        ]
        return lockstep(fits, resumed=states is not None)

    def _take(self, steps: Sequence[Step], *, log: bool) -> None:
        """Logs a validation and keeps it if it is the best."""
        metrics, index = mean_of(steps), index_of(steps)
        task = self.job.plan.objective.task
        self._check_names(metrics)
        if log:
            self.run_record.log_metrics(curves_of(metrics) | self._changing(), index)
            for fold_run, step in zip(self.fold_runs, steps, strict=False):
                fold_run.log_metrics(curves_of(step.metrics), index)
        if "time/epoch_s" in metrics:
            self.epoch_s.append(metrics["time/epoch_s"])
        value = metrics[task.primary]
        if value != value:
            raise Diverged(f"{task.primary} must be a number, but it is NaN at validation {index}.")
        sign = 1 if task.direction == "maximize" else -1
        if not self.best or sign * value > sign * self.best[task.primary]:
            self.best = scores_of(metrics)
            self.best_step = index
            self.best_folds = [scores_of(step.metrics) for step in steps]
            for number, step in enumerate(steps):
                self._save_best(step.model, number)

    def _report(self, steps: Sequence[Step]) -> Turns | None:
        """Tells the engine, which may stop the trial here; the turns of another state it wants."""
        metrics = mean_of(steps)
        value = metrics[self.job.plan.objective.task.primary]
        try:
            self.report(index_of(steps), metrics.get(self.job.plan.goals[0].metric, value))
        except Exploit as wanted:
            return self._follow(wanted)
        return None

    def _follow(self, wanted: Exploit) -> Turns | None:
        """The turns from another trial's latest checkpoint on; None where that trial has ended.

        What was the best before belongs to a training that is given up.
        """
        tags = {"kind": "trial", "trial": str(wanted.donor)}
        runs = self.job.tracker.find(tags, parent=self.job.parent)
        found = (load_checkpoint(self.job.scratch / run.id / CHECKPOINT) for run in runs)
        donor = next((checkpoint for checkpoint in found if checkpoint), None)
        if donor is None:
            return None
        own = self.course
        earlier = [change for change in from_plain(donor.course) if change.step < donor.step]
        self.course = [*earlier, Change(donor.step, wanted.point, wanted.donor)]
        turns = self._turns(donor.states)
        first = next(turns, None)
        if first is None:  # it has nothing left to train
            self.course = own
            return None
        self.best, self.best_step, self.best_folds = {}, -1, []
        self._save(self._checkpoint(donor.step, donor.states))  # to go on from after a kill
        log_course(self.run_record, self.course)
        return chain([first], turns)

    def _change(self, steps: Sequence[Step]) -> Turns | None:
        """The turns with the next values, where they are due."""
        if not self.to_come or index_of(steps) < self.to_come[0].step:
            return None
        self.course.append(self.to_come.pop(0))
        log_course(self.run_record, self.course)
        return self._turns([step.state() for step in steps])

    def _changing(self) -> dict[str, float]:
        """The values that change on the way, as points of curves."""
        if not self.job.is_population and not self.to_come and len(self.course) == 1:
            return {}
        now, mutable = self.course[-1].point.items(), self.job.plan.objective.mutable
        return {f"params/{n}": v for n, v in now if n in mutable and isinstance(v, float)}

    def _check_names(self, metrics: Mapping[str, float]) -> None:
        """Goals, gates, figures name what there is: the end of a sweep is late to find out."""
        known = {*scores_of(metrics), *SUMMARY}
        for goal in self.job.plan.goals:
            if goal.metric not in known:
                raise GoalError("metric to optimise", goal.metric, known)
        for name in self.job.plan.experiment.gates:
            if name not in known and name not in (BY_CLASS, BY_GROUP):
                raise GoalError("metric of a gate", name, {*known, BY_CLASS, BY_GROUP})
        searched = set(self.job.plan.space or ())
        for figure in self.job.plan.experiment.figures:
            for name in figure.numbers:
                if name not in known | searched and not name.startswith(MEASURED):
                    raise GoalError("number of a figure", name, known | searched)

    def _save_best(self, model: Model, number: int) -> None:
        """Keeps a fold's model, and what it predicts as long as it is live."""
        folder = self.folder / f"best-{number}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            model.save(folder)
            if self.job.keep_model:
                images = self.folds[number].val.images[:NUM_IMAGES]
                live = LivePredictions(_predict_exactly(model, images), self.job.device)
                live.save(self._live_file(number))
        except OSError as error:
            raise StoreError(
                f"the disk must take a trial's files, but {folder} gave: {error}. "
                "Free space there, then go on with --resume."
            ) from error

    def _live_file(self, number: int) -> Path:
        return self.folder / f"live-{number}.safetensors"

    def _is_due(self, index: int) -> bool:
        """Whether to checkpoint: others of a population go on from what it was when it reported."""
        sweep = self.job.plan.experiment.sweep
        if self.job.is_population and (index + 1) % sweep.exploit_every == 0:
            return True
        return time.monotonic() - self.saved >= sweep.checkpoint_seconds

    def _checkpoint(self, step: int, states: list[State]) -> Checkpoint:
        best = (self.best_step, self.best, self.best_folds)
        return Checkpoint(step, states, *best, self.seconds, plain(self.course))

    def _save(self, checkpoint: Checkpoint) -> None:
        for run in (self.run_record, *self.fold_runs):
            run.flush()  # a curve must not have a gap after a resume
        save_checkpoint(self.folder / CHECKPOINT, checkpoint)
        self.saved = time.monotonic()

    def _last_logged(self) -> int:
        if not self.resumed:
            return -1
        primary = self.job.plan.objective.task.primary
        return self.job.tracker.last_step(self.run_record.id, f"val/{primary}")

    def _summary(self, num_params: int) -> dict[str, float]:
        folder = self.folder / "best-0"
        model = self.job.plan.objective.model.load(folder)
        return {
            **self.best,
            "best_step": self.best_step,
            # Some models count only once they are trained: an SVM's support vectors.
            "params_total": max(num_params, model.num_trainable),
            "params_trainable": model.num_trainable,
            "model_bytes": sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()),
            "ms_per_image": ms_per_image(model, self.folds[0].val.images),
            "train_s": self.seconds,
            **({"epoch_s": median(self.epoch_s)} if self.epoch_s else {}),
        }

    def _tag_origin(self) -> None:
        """What the training began from, where the model knows; for the run's page and the card."""
        model = self.job.plan.objective.model.load(self.folder / "best-0")
        if origin := getattr(model, "origin", ""):
            self.run_record.set_tags({ORIGIN: origin})

    def _log_intervals(self) -> None:
        """How sure the scores of the best validation are, where the task says so."""
        objective = self.job.plan.objective
        if objective.task.intervals is None:
            return
        runs = self.fold_runs or [self.run_record]
        for number, (run, fold) in enumerate(zip(runs, self.folds, strict=True)):
            model = objective.model.load(self.folder / f"best-{number}")
            for prefix, seen in objective.predictors(model).items():
                ends = objective.task.intervals(seen, fold.val)
                run.log_metrics(interval_metrics(ends, prefix))

    def _log_measurements(self) -> None:
        """What the model's figures measure of it: of the first fold, whose model is kept."""
        objective = self.job.plan.objective
        model = objective.model.load(self.folder / "best-0")
        names = objective.task.figures + objective.figures
        found = measurements(names, model, self.folds[0].val, self.job.device)
        self.run_record.log_metrics({k: v for k, v in found.items() if math.isfinite(v)})


def _predict_exactly(model: Model, images: Sequence[UInt8Array]) -> list[Float32Array]:
    """Predictions in float32: a GPU's convolutions round to ten bits unless told otherwise."""
    import torch

    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        return model.predict(images)


def goal_values(plan: Plan, summary: Mapping[str, float]) -> tuple[float, ...]:
    """The goals' values of a finished trial. Raises `Diverged` where one is no finite number."""
    for goal in plan.goals:
        if not math.isfinite(summary[goal.metric]):
            raise Diverged(f"{goal.metric} must be finite, but it is {summary[goal.metric]}.")
    return tuple(summary[goal.metric] for goal in plan.goals)
