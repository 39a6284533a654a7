"""The books of one search: what to evaluate next, what it reported, how it ended.

Whatever the engine, the process that calls `search` is the only one that touches the study, and it
does so here. Optuna's storage is the truth of the search: a trial that is RUNNING there when a
search starts was interrupted, and is taken up again under its own number.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from hemaml.core.experiment import Sweep
from hemaml.core.search import Assigned, Ending, Event, Outcome, Study, Watch
from hemaml.core.space import Space
from hemaml.core.types import Point
from hemaml.engines.optuna_study import open_study, own_trials
from hemaml.engines.patience import awaited
from hemaml.engines.workers import Died

optuna.logging.set_verbosity(optuna.logging.ERROR)  # each trial is told by `watch`

MAX_DEATHS = 2
"""Workers a trial may kill before it is recorded as failed."""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
STATES = {
    "finished": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "over_budget": TrialState.PRUNED,
}
Result = TypeVar("Result")


class Ledger:
    """The state of one call of `search`; call `open` first. Trials go by their numbers.

    Raises:
        StoreError: The study's storage cannot be used; of every method.
        ConfigError: A study to start from does not exist.
    """

    def __init__(self, space: Space, sweep: Sweep, study: Study, watch: Watch) -> None:
        self.space = space
        self.sweep = sweep
        self.watch = watch
        self.storage = study.storage
        self.study = self._awaited(lambda: open_study(space, sweep, study))
        self.interrupted = self._awaited(partial(self._own, TrialState.RUNNING))
        ended_before = self._ended()
        self.deadline = time.monotonic() + sweep.hours * 3600 if sweep.hours else float("inf")
        self.open: dict[int, Trial] = {}
        self.twins: list[Trial] = []
        self.points: dict[int, Point] = {}
        self.deaths: dict[int, int] = {}
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

        def write() -> None:
            for name in ("ending", "run_id", "key", "reason", "reused_from"):
                if text := getattr(outcome, name):
                    trial.set_user_attr(name, text)
            if outcome.excess is not None:
                trial.set_constraint("max_params", float(outcome.excess))
            state = STATES.get(outcome.ending, TrialState.FAIL)
            values = list(outcome.values) if state == TrialState.COMPLETE else None
            self.study.tell(trial, values, state)

        def write_again() -> None:
            if number not in {ended.number for ended in own_trials(self.study, *ENDED)}:
                write()

        self._awaited(write, write_again)
        del self.open[number]
        self.watch(Event("ended", number, self.points[number], outcome=outcome))

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
            trial = self._awaited(self.study.ask, self._ask_again)
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
        made = [t for t in self._own(TrialState.RUNNING) if t.number not in known]
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
        ended = self._ended()
        begun = len(ended) + len(self.open) + len(self.twins)
        if begun >= self.sweep.trials or time.monotonic() > self.deadline:
            return False
        waiting = partial(self._own, TrialState.WAITING)
        if self.sweep.sampler == "grid" and not self._awaited(waiting):
            return False
        patience = self.sweep.patience
        return patience is None or _since_best(self.study, ended) < patience

    def _ended(self) -> list[FrozenTrial]:
        return self._awaited(lambda: own_trials(self.study, *ENDED))

    def _awaited(
        self, call: Callable[[], Result], again: Callable[[], Result] | None = None
    ) -> Result:
        return awaited(self.storage, call, again)

    def _own(self, state: TrialState) -> list[Trial]:
        return [Trial(self.study, t._trial_id) for t in own_trials(self.study, state)]


def _outcome(trial: FrozenTrial) -> Outcome:
    """The outcome that `tell` stored."""
    told = trial.user_attrs
    names = ("ending", "run_id", "key", "reason", "reused_from")
    return Outcome(values=tuple(trial.values or ()), **{n: told[n] for n in names if n in told})


def _since_best(study: optuna.Study, ended: Sequence[FrozenTrial]) -> int:
    """Trials that ended after the best one did."""
    done = [trial for trial in ended if trial.state == TrialState.COMPLETE]
    if not done:
        return len(ended)
    sign = 1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else -1
    best = max(done, key=lambda trial: sign * trial.values[0])
    assert best.datetime_complete is not None
    return sum(t.datetime_complete > best.datetime_complete for t in ended if t.datetime_complete)
