"""The native engine: one Optuna study, searched by this process or by its workers.

The process that calls `search` is the only one that touches the study. Optuna's storage is the
truth of the search: a trial that is RUNNING there when a search starts was interrupted, and is
taken up again under its own number.
"""

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from hemaml.core.experiment import Sweep
from hemaml.core.search import Assigned, Ending, Evaluate, Event, Outcome, Stopped, Study, Watch
from hemaml.core.space import Space
from hemaml.core.task import Direction
from hemaml.core.types import Point
from hemaml.engines.optuna_study import open_storage, open_study, own_trials, storage_errors
from hemaml.engines.workers import Died, Refused, Reported, Worker, ready

optuna.logging.set_verbosity(optuna.logging.ERROR)  # each trial is told by `watch`

MAX_DEATHS = 2
"""Workers a trial may kill before it is recorded as failed."""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
STATES = {
    "finished": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "over_budget": TrialState.PRUNED,
}


def search(evaluate: Evaluate, space: Space, sweep: Sweep, study: Study, watch: Watch) -> None:
    """Searches a space until a limit of the sweep is reached.

    A study of this name that exists is continued: interrupted trials first, then new ones up to
    `sweep.trials` in all. On Ctrl-C, workers are ended and the interrupted trials stay RUNNING in
    the study, so that the next call takes them up.

    Raises:
        KeyboardInterrupt: Passed on once no worker is left.
        StoreError: The study's storage or the tracking store cannot be used.
        ConfigError: A study to start from does not exist.
    """
    _Search(evaluate, space, sweep, study, watch).run()


class _Search:
    """The state of one call of `search`."""

    def __init__(
        self, evaluate: Evaluate, space: Space, sweep: Sweep, study: Study, watch: Watch
    ) -> None:
        self.evaluate = evaluate
        self.space = space
        self.sweep = sweep
        self.watch = watch
        self.storage = study.storage
        with storage_errors(self.storage):
            self.study = open_study(space, sweep, study)
            self.interrupted = self._own(TrialState.RUNNING)
            self.ended_before = own_trials(self.study, *ENDED)
        self.deadline = time.monotonic() + sweep.hours * 3600 if sweep.hours else float("inf")
        self.open: dict[int, Trial] = {}
        self.twins: list[Trial] = []
        self.points: dict[int, Point] = {}
        self.deaths: dict[int, int] = {}

    def run(self) -> None:
        for ended in self.ended_before:
            self.watch(Event("earlier", ended.number, dict(ended.params), outcome=_outcome(ended)))
        if self.sweep.workers == 1:
            self._run_here()
        else:
            self._run_workers()

    def _run_here(self) -> None:
        while (trial := self._next()) is not None:

            def report(step: int, value: float, trial: Trial = trial) -> None:
                if self._report(trial, step, value):
                    raise Stopped

            self._tell(trial, self.evaluate(self._assigned(trial), report))

    def _run_workers(self) -> None:
        workers: list[Worker] = []
        try:
            for slot in range(self.sweep.workers):
                workers.append(self._hire(slot))
            while busy := [worker for worker in workers if worker.assigned]:
                for worker in ready(busy):
                    if self._hear(worker):
                        workers[worker.slot] = self._replace(worker)
                for worker in workers:
                    if worker.assigned is None:
                        self._give_next(worker)
        finally:
            for worker in workers:
                worker.stop()

    def _hire(self, slot: int) -> Worker:
        worker = Worker(self.evaluate, slot, self.sweep.workers)
        self._give_next(worker)
        return worker

    def _give_next(self, worker: Worker) -> None:
        if (trial := self._next()) is not None:
            worker.assign(self._assigned(trial))

    def _hear(self, worker: Worker) -> bool:
        """Acts on what a worker says; True where the worker must be replaced."""
        assert worker.assigned is not None
        trial = self.open[worker.assigned.number]
        match worker.receive():
            case Reported(step, value):
                worker.answer(stop=self._report(trial, step, value))
            case Outcome() as outcome:
                self._tell(trial, outcome)
                worker.assigned = None
            case Refused(error):
                raise error
            case Died() as death:
                self._lose(trial, death)
                return True
        return False

    def _replace(self, worker: Worker) -> Worker:
        worker.stop()
        return self._hire(worker.slot)

    def _lose(self, trial: Trial, death: Died) -> None:
        """Puts the trial of a dead worker first in the queue, or ends it after the second death."""
        deaths = self.deaths[trial.number] = self.deaths.get(trial.number, 0) + 1
        self.watch(Event("lost", trial.number, self.points[trial.number]))
        if deaths < MAX_DEATHS:
            self.interrupted.insert(0, trial)
            return
        reason = f"its worker died {deaths} times, last with {death}"
        ending: Ending = "out_of_memory" if death.out_of_memory else "failed"
        self._tell(trial, Outcome(ending, reason=reason))

    def _next(self) -> Trial | None:
        """The trial to work on now, or None where there is none, for ever or for now."""
        trial = self._twin_free() or self._asked()
        if trial is None or self._is_being_evaluated(trial):
            self.twins += [trial] if trial else []
            return None
        self.open[trial.number] = trial
        self.watch(Event("started", trial.number, self.points[trial.number]))
        return trial

    def _asked(self) -> Trial | None:
        """An interrupted trial, else a new one where a limit allows one and no twin waits."""
        with storage_errors(self.storage):
            if self.interrupted:
                trial = self.interrupted.pop(0)
            elif not self.twins and self._may_start():
                trial = self.study.ask()
            else:
                return None
            # Not `trial.params`: what was given by hand as 5 is 5.0 once it has been stored.
            self.points[trial.number] = self.space.suggest(trial)
        return trial

    def _twin_free(self) -> Trial | None:
        """A trial that waited for an equal one, which has ended: it may take over the result."""
        free = [trial for trial in self.twins if not self._is_being_evaluated(trial)]
        if free:
            self.twins.remove(free[0])
        return free[0] if free else None

    def _is_being_evaluated(self, trial: Trial) -> bool:
        """Whether a worker is at the very same point; both would train the same network."""
        point = self.points[trial.number]
        return any(self.points[number] == point for number in self.open if number != trial.number)

    def _may_start(self) -> bool:
        ended = own_trials(self.study, *ENDED)
        begun = len(ended) + len(self.open) + len(self.twins)
        if begun >= self.sweep.trials or time.monotonic() > self.deadline:
            return False
        if self.sweep.sampler == "grid" and not self._own(TrialState.WAITING):
            return False
        patience = self.sweep.patience
        return patience is None or _since_best(self.study, ended) < patience

    def _own(self, state: TrialState) -> list[Trial]:
        return [Trial(self.study, t._trial_id) for t in own_trials(self.study, state)]

    def _assigned(self, trial: Trial) -> Assigned:
        return Assigned(trial.number, self.points[trial.number])

    def _report(self, trial: Trial, step: int, value: float) -> bool:
        """Passes a value on; whether the trial shall stop."""
        self.watch(Event("reported", trial.number, self.points[trial.number], step, value))
        if len(self.study.directions) > 1:  # Optuna takes no reports there
            return False
        with storage_errors(self.storage), warnings.catch_warnings():
            # A continued trial repeats the steps after its checkpoint; the first report counts.
            warnings.filterwarnings("ignore", "The reported value is ignored")
            trial.report(value, step)
            return trial.should_prune()

    def _tell(self, trial: Trial, outcome: Outcome) -> None:
        with storage_errors(self.storage):
            for name in ("ending", "run_id", "key", "reason", "reused_from"):
                if text := getattr(outcome, name):
                    trial.set_user_attr(name, text)
            if outcome.excess is not None:
                trial.set_constraint("max_params", float(outcome.excess))
            state = STATES.get(outcome.ending, TrialState.FAIL)
            values = list(outcome.values) if state == TrialState.COMPLETE else None
            self.study.tell(trial, values, state)
        self.open.pop(trial.number, None)
        self.watch(Event("ended", trial.number, self.points[trial.number], outcome=outcome))


def _outcome(trial: FrozenTrial) -> Outcome:
    """The outcome that `_tell` stored."""
    told = trial.user_attrs
    names = ("ending", "run_id", "key", "reason", "reused_from")
    return Outcome(values=tuple(trial.values or ()), **{n: told[n] for n in names if n in told})


@dataclass(frozen=True, slots=True)
class Searched:
    """A trial as the study has it; `best` marks the best one, or the Pareto front."""

    number: int
    point: Point
    values: tuple[float, ...]
    ending: str
    reason: str
    run_id: str
    key: str
    seconds: float
    best: bool


def searched(study: Study) -> list[Searched]:
    """The study's own trials by number, those that still run included."""
    with storage_errors(study.storage):
        storage = open_storage(study.storage)
        if study.name not in optuna.get_all_study_names(storage):
            return []
        opened = optuna.load_study(study_name=study.name, storage=storage)
        trials = own_trials(opened)
    best = _best_numbers(opened, trials)
    return [
        Searched(
            trial.number,
            dict(trial.params),
            tuple(trial.values or ()),
            _ending(trial),
            trial.user_attrs.get("reason", ""),
            trial.user_attrs.get("run_id", ""),
            trial.user_attrs.get("key", ""),
            trial.duration.total_seconds() if trial.duration else 0.0,
            trial.number in best,
        )
        for trial in trials
    ]


def _ending(trial: FrozenTrial) -> str:
    """How it ended; one that was killed while its outcome was being told has not."""
    open_as = "running" if trial.params else "waiting"
    return trial.user_attrs.get("ending", open_as) if trial.state.is_finished() else open_as


def ranked(trials: Sequence[Searched], direction: Direction) -> list[Searched]:
    """The trials that finished, the best in the first goal first; of equal trials only one."""
    sign = 1 if direction == "maximize" else -1
    finished = [trial for trial in trials if trial.ending == "finished"]
    distinct = {trial.key: trial for trial in reversed(finished)}.values()
    return sorted(distinct, key=lambda trial: (-sign * trial.values[0], trial.number))


def _best_numbers(study: optuna.Study, trials: Sequence[FrozenTrial]) -> set[int]:
    """The best of these trials, or their front: what other studies lent does not compete."""
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    alone = optuna.create_study(directions=study.directions)
    alone.add_trials(done)  # renumbers them
    return {done[trial.number].number for trial in alone.best_trials} if done else set()


def _since_best(study: optuna.Study, ended: Sequence[FrozenTrial]) -> int:
    """Trials that ended after the best one did."""
    done = [trial for trial in ended if trial.state == TrialState.COMPLETE]
    if not done:
        return len(ended)
    sign = 1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else -1
    best = max(done, key=lambda trial: sign * trial.values[0])
    assert best.datetime_complete is not None
    return sum(t.datetime_complete > best.datetime_complete for t in ended if t.datetime_complete)
