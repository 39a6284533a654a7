"""The books of one search: what to evaluate next, what it reported, how it ended.

Whatever the engine, the process that calls `search` is the only one that touches the study, and it
does so here. Optuna's storage is the truth of the search: a trial that is RUNNING there when a
search starts was interrupted, and is taken up again under its own number.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TypeVar

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from hemaml.core.errors import StoreError
from hemaml.core.search import Assigned, Ending, Event, Outcome, Study, Watch
from hemaml.core.space import Space
from hemaml.core.sweep import Sweep
from hemaml.core.types import Point
from hemaml.engines.optuna_study import (
    closing,
    open_storage,
    open_study,
    own_trials,
    storage_errors,
)
from hemaml.engines.outages import awaited
from hemaml.engines.workers import Died

optuna.logging.set_verbosity(optuna.logging.ERROR)  # each trial is told by `watch`

MAX_DEATHS = 2
"""Workers a trial may kill before it is recorded as failed."""
MAX_DEATHS_HERE = 3
"""The same of processes without a worker, which others may kill as well: a batch system, a cut."""
BEGUN = "begun_at"
"""User attribute of a trial without a worker: its last step as it began, and how often it did so
there without a word of its end."""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
STATES = {
    "finished": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "over_budget": TrialState.PRUNED,
}
Result = TypeVar("Result")


@contextmanager
def opened(space: Space, sweep: Sweep, study: Study, watch: Watch) -> Iterator["Ledger"]:
    """The ledger of a search, whose connections to the study's storage end with it."""
    location = study.storage
    with closing(awaited(location, lambda: open_storage(location, keep=True))) as storage:
        yield Ledger(space, sweep, study, watch, storage)


class Ledger:
    """The state of one call of `search`; made by `opened`. Trials go by their numbers.

    Raises:
        StoreError: The study's storage cannot be used; of every method.
        ConfigError: A study to start from does not exist.
    """

    def __init__(
        self, space: Space, sweep: Sweep, study: Study, watch: Watch, storage: BaseStorage
    ) -> None:
        self.space = space
        self.sweep = sweep
        self.watch = watch
        self.location = study.storage
        self.study = self._awaited(lambda: open_study(storage, space, sweep, study))
        self.interrupted = self._running()
        self.num_queued = len(self._in(TrialState.WAITING))
        ended_before = self._in(*ENDED)
        self.deadline = time.monotonic() + sweep.hours * 3600 if sweep.hours else float("inf")
        self.open: dict[int, Trial] = {}
        self.twins: list[Trial] = []
        self.points: dict[int, Point] = {}
        self.deaths: dict[int, int] = {}
        # Counted from here on: a look at all trials before each new one grows with their number.
        self.num_ended = len(ended_before)
        self.since_best = _SinceBest(self.study, ended_before)
        for ended in ended_before:
            watch(Event("earlier", ended.number, dict(ended.params), outcome=_outcome(ended)))

    def next(self) -> Assigned | None:
        """The trial to work on now, or None where there is none, for ever or for now."""
        trial = self._twin_free() or self._asked()
        if trial is None or self._is_being_evaluated(trial):
            self.twins += [trial] if trial else []
            return None
        self.open[trial.number] = trial
        self.watch(Event("started", trial.number, self.points[trial.number]))
        return Assigned(trial.number, self.points[trial.number])

    def report(self, number: int, step: int, value: float) -> None:
        """Passes a step's value on."""
        self.watch(Event("reported", number, self.points[number], step, value))
        if len(self.study.directions) > 1:  # Optuna takes no reports there
            return
        with warnings.catch_warnings():
            # A continued trial repeats the steps after its checkpoint; the first report counts.
            warnings.filterwarnings("ignore", "The reported value is ignored")
            self._awaited(lambda: self.open[number].report(value, step))

    def prunes(self, number: int) -> bool:
        """Whether the study's own pruner wants no more of the trial."""
        if len(self.study.directions) > 1:
            return False
        return self._awaited(lambda: self.open[number].should_prune())

    def tell(self, number: int, outcome: Outcome) -> None:
        """Records how a trial ended."""
        trial = self.open[number]
        state = STATES.get(outcome.ending, TrialState.FAIL)
        values = list(outcome.values) if state == TrialState.COMPLETE else None

        def write() -> None:
            for name in ("ending", "run_id", "key", "reason", "reused_from"):
                if text := getattr(outcome, name):
                    trial.set_user_attr(name, text)
            if outcome.excess is not None:
                trial.set_constraint("max_params", float(outcome.excess))
            self.study.tell(trial, values, state)

        def write_again() -> None:
            done = own_trials(self.study, *ENDED)
            if number not in {trial.number for trial in done}:  # else only the answer was lost
                write()

        self._awaited(write, write_again)
        del self.open[number]
        self.num_ended += 1
        self.since_best.add(values)
        self.watch(Event("ended", number, self.points.pop(number), outcome=outcome))

    def lose(self, number: int, death: Died) -> None:
        """Puts the trial of a dead worker first in the queue, or ends it after the second death."""
        deaths = self.deaths[number] = self.deaths.get(number, 0) + 1
        self.watch(Event("lost", number, self.points[number]))
        if deaths < MAX_DEATHS:
            self.again(number)
            return
        reason = f"its worker died {deaths} times, last with {death}"
        ending: Ending = "out_of_memory" if death.out_of_memory else "failed"
        self.tell(number, Outcome(ending, reason=reason))

    def begin_here(self, number: int) -> bool:
        """Notes that no worker is between a trial and this process.

        Returns:
            Whether it may begin. One at which process after process has died, none further than
            the first, is ended: it would be the first that the next process takes up.
        """
        stored = self._awaited(lambda: self.study._storage.get_trial(self.open[number]._trial_id))
        step, deaths = stored.user_attrs.get(BEGUN, (None, 0))
        if step != stored.last_step:
            deaths = 0
        if deaths == MAX_DEATHS_HERE:
            reason = f"its process died {deaths} times, and it came no further in between"
            self.tell(number, Outcome("failed", reason=reason))
            return False
        begun = (stored.last_step, deaths + 1)
        self._awaited(lambda: self.open[number].set_user_attr(BEGUN, begun))
        return True

    def leave(self) -> None:
        """Notes that the process ends in order, whatever trials are open."""
        with suppress(StoreError), storage_errors(self.location):  # the fault itself, often
            for trial in self.open.values():
                trial.set_user_attr(BEGUN, (None, 0))

    def again(self, number: int) -> None:
        """Puts a trial first in the queue."""
        self.interrupted.insert(0, self.open.pop(number))

    @property
    def at_end(self) -> bool:
        """Whether nothing is being evaluated and nothing will be."""
        return not (self.open or self.twins or self.interrupted or self._may_start())

    def _asked(self) -> Trial | None:
        """An interrupted trial, else a new one where a limit allows one and no twin waits."""
        if self.interrupted:
            trial = self.interrupted.pop(0)
        elif not self.twins and self._may_start():
            trial = self._awaited(self.study.ask, self._ask_again)  # what is queued comes first
            self.num_queued = max(0, self.num_queued - 1)
        else:
            return None
        # Not `trial.params`: what was given by hand as 5 is 5.0 once it has been stored.
        self.points[trial.number] = self._awaited(
            lambda: self.space.suggest(trial),
            lambda: self.space.suggest(Trial(self.study, trial._trial_id)),  # with what is stored
        )
        return trial

    def _ask_again(self) -> Trial:
        """The trial that was made though the answer was lost, else a new one."""
        known = {*self.open, *(trial.number for trial in (*self.twins, *self.interrupted))}
        made = [trial for trial in self._running() if trial.number not in known]
        return made[0] if made else self.study.ask()

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
        begun = self.num_ended + len(self.open) + len(self.twins)
        if begun >= self.sweep.trials or time.monotonic() > self.deadline:
            return False
        if self.sweep.sampler == "grid" and not self.num_queued:
            return False
        return self.sweep.patience is None or self.since_best.count < self.sweep.patience

    def _running(self) -> list[Trial]:
        return [Trial(self.study, trial._trial_id) for trial in self._in(TrialState.RUNNING)]

    def _in(self, *states: TrialState) -> list[FrozenTrial]:
        return self._awaited(lambda: own_trials(self.study, *states))

    def _awaited(
        self, call: Callable[[], Result], again: Callable[[], Result] | None = None
    ) -> Result:
        return awaited(self.location, call, again)


class _SinceBest:
    """Trials that ended after the best one did, by the first goal."""

    def __init__(self, study: optuna.Study, ended: Sequence[FrozenTrial]) -> None:
        self.sign = 1 if study.directions[0] == StudyDirection.MAXIMIZE else -1
        self.best = -math.inf
        self.count = 0
        for trial in sorted(ended, key=lambda trial: trial.datetime_complete or datetime.max):
            self.add(trial.values if trial.state == TrialState.COMPLETE else None)

    def add(self, values: Sequence[float] | None) -> None:
        """Counts one more end; `values` only of a trial that finished."""
        self.count += 1
        if values and self.sign * values[0] > self.best:
            self.best, self.count = self.sign * values[0], 0


def _outcome(trial: FrozenTrial) -> Outcome:
    """The outcome that `tell` stored."""
    told = trial.user_attrs
    names = ("ending", "run_id", "key", "reason", "reused_from")
    return Outcome(values=tuple(trial.values or ()), **{n: told[n] for n in names if n in told})
