"""The native engine: one Optuna study, searched by this process or by its workers."""

from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

from hemaml.core.search import Assigned, Evaluate, Outcome, Stopped, Study, Watch
from hemaml.core.space import Space
from hemaml.core.sweep import Sweep
from hemaml.core.task import Direction
from hemaml.core.types import Point
from hemaml.engines.ledger import Ledger, opened
from hemaml.engines.optuna_study import open_storage, own_trials
from hemaml.engines.outages import awaited
from hemaml.engines.workers import Died, Refused, Reported, Worker, ready


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
    with opened(space, sweep, study, watch) as ledger:
        if sweep.workers == 1:
            _run_here(evaluate, ledger)
        else:
            _Crew(evaluate, ledger, sweep.workers).run()


def _run_here(evaluate: Evaluate, ledger: Ledger) -> None:
    try:
        while (assigned := ledger.next()) is not None:
            if ledger.begin_here(assigned.number):
                _evaluate_here(evaluate, assigned, ledger)
    except BaseException:
        ledger.leave()
        raise


def _evaluate_here(evaluate: Evaluate, assigned: Assigned, ledger: Ledger) -> None:
    number = assigned.number

    def report(step: int, value: float) -> None:
        ledger.report(number, step, value)
        if ledger.prunes(number):
            raise Stopped

    ledger.tell(number, evaluate(assigned, report))


class _Crew:
    """Worker processes side by side."""

    def __init__(self, evaluate: Evaluate, ledger: Ledger, num_workers: int) -> None:
        self.evaluate = evaluate
        self.ledger = ledger
        self.num_workers = num_workers

    def run(self) -> None:
        workers: list[Worker] = []
        try:
            for slot in range(self.num_workers):
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
        worker = Worker(self.evaluate, slot, self.num_workers)
        self._give_next(worker)
        return worker

    def _give_next(self, worker: Worker) -> None:
        if (assigned := self.ledger.next()) is not None:
            worker.assign(assigned)

    def _hear(self, worker: Worker) -> bool:
        """Acts on what a worker says; True where the worker must be replaced."""
        assert worker.assigned is not None
        number = worker.assigned.number
        match worker.receive():
            case Reported(step, value):
                self.ledger.report(number, step, value)
                worker.answer(stop=self.ledger.prunes(number))
            case Outcome() as outcome:
                self.ledger.tell(number, outcome)
                worker.assigned = None
            case Refused(error):
                raise error
            case Died() as death:
                self.ledger.lose(number, death)
                return True
        return False

    def _replace(self, worker: Worker) -> Worker:
        worker.stop()
        return self._hire(worker.slot)


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
    trials = awaited(study.storage, lambda: _stored(study))
    best = _best_numbers(study, trials)
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


def _stored(study: Study) -> list[FrozenTrial]:
    storage = open_storage(study.storage)
    if study.name not in optuna.get_all_study_names(storage):
        return []
    return own_trials(optuna.load_study(study_name=study.name, storage=storage))


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


def _best_numbers(study: Study, trials: Sequence[FrozenTrial]) -> set[int]:
    """The best of these trials, or their front: what other studies lent does not compete."""
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    alone = optuna.create_study(directions=list(study.directions))
    alone.add_trials(done)  # renumbers them
    return {done[trial.number].number for trial in alone.best_trials} if done else set()
