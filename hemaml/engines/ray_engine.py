"""The Ray engine: the same search as the native one, on the workers of a Ray cluster.

Ray Tune places trials, runs its schedulers and sees workers die; which trial comes next and how
one ended goes through the ledger that the native engine keeps, in this process alone. So a study
does not show which engine made it, and either can go on with it. Ray's own `OptunaSearch` would
tell trials that were stopped early as complete, and knows neither twins nor interrupted trials.
"""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from tempfile import mkdtemp
from typing import Any

import ray
from ray import cloudpickle, tune
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from hemaml.core.errors import ConfigError, StoreError
from hemaml.core.search import Assigned, Evaluate, Outcome, Stopped, Study, Watch
from hemaml.core.space import Space
from hemaml.core.sweep import Sweep
from hemaml.engines.ledger import Ledger, opened
from hemaml.engines.ray_cluster import (
    Nodes,
    Share,
    connected,
    machines,
    share_of,
    store_environment,
)
from hemaml.engines.ray_schedulers import scheduler_of
from hemaml.engines.ray_trial import RayTrial
from hemaml.engines.workers import Died, memory_kills

logger = logging.getLogger(__name__)

TUNE_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # which prints whatever the verbosity
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours, as in the native engine
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # the study is the truth, not Tune's own state
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}
KILL_WAIT_S = 10


def search(evaluate: Evaluate, space: Space, sweep: Sweep, study: Study, watch: Watch) -> None:
    """Searches a space until a limit of the sweep is reached; see the native engine's `search`.

    Raises:
        KeyboardInterrupt: Passed on once no worker is left.
        StoreError: The study's storage, the tracking store or the cluster cannot be used.
        ConfigError: A study to start from does not exist, or no node has a trial's resources.
    """
    with opened(space, sweep, study, watch) as ledger:
        if not ledger.at_end:
            _run(evaluate, ledger, scheduler_of(sweep, space, study))


def _run(evaluate: Evaluate, ledger: Ledger, scheduler: TrialScheduler) -> None:
    sweep = ledger.sweep
    with connected(sweep) as nodes, _scratch(sweep) as folder:
        _check_population(sweep, nodes)
        desk = _Desk(ledger, share_of(sweep, nodes))
        winding = _Winding(desk, scheduler)
        trainable = tune.with_parameters(
            RayTrial, evaluate=evaluate, environment=store_environment()
        )
        try:
            tune.run(
                tune.with_resources(trainable, _placement),
                search_alg=_Asking(desk),
                scheduler=winding,
                callbacks=[_Watching(desk)],
                num_samples=-1,
                reuse_actors=True,
                raise_on_failed_trial=False,
                storage_path=folder,
                trial_dirname_creator=lambda trial: trial.trial_id,
                verbose=0,
                _remote=False,
            )
        finally:
            desk.end_workers()
            winding.give_back()


def _check_population(sweep: Sweep, nodes: Nodes) -> None:
    """Raises `ConfigError` where trials could not read each other's checkpoints."""
    num = len(machines(nodes))
    if sweep.is_population and num > 1:
        raise ConfigError(
            f"`pruner: {sweep.pruner}` needs one machine, since trials go on from each other's "
            f"checkpoints there, but the cluster has {num}. Leave the address out, or use another "
            "pruner."
        )


class _Desk:
    """What Tune's three kinds of helpers share, and all that they do."""

    def __init__(self, ledger: Ledger, share: Share) -> None:
        self.ledger = ledger
        self.share = share
        self.larger: dict[int, Share] = {}
        self.fault: Exception | None = None
        self.workers: set[Any] = set()
        self.at_work: dict[int, tuple[Any, float]] = {}
        self.overdue: set[int] = set()
        self.memory_kills = memory_kills()
        limit = ledger.sweep.trial_hours
        self.limit_s = limit * 3600 if limit else float("inf")

    @contextmanager
    def keeping_faults(self) -> Iterator[None]:
        """Keeps an error for `raise_fault`: Tune would take it for one of the trial's."""
        try:
            yield
        except Exception as error:
            self.fault = self.fault or error

    def raise_fault(self) -> None:
        if self.fault is not None:
            raise self.fault

    def next(self) -> dict[str, Any] | str | None:
        """The configuration of the next trial, None for none now, `FINISHED` for none ever."""
        if len(self.ledger.open) >= self.ledger.sweep.workers:
            return None
        assigned = self.ledger.next()
        if assigned is None and self.ledger.at_end:
            self.end_workers()  # idle all; Tune would wait for each to end in good order
            return str(Searcher.FINISHED)
        if assigned is None:
            return None
        share = self.larger.get(assigned.number, self.share)
        return {"assigned": assigned, "cpu": share.cpu, "gpu": share.gpu}

    def end(self, number: int, result: dict[str, Any]) -> None:
        """Takes what a trial said last."""
        self.at_work.pop(number, None)
        if "refused" in result:
            raise result["refused"]
        outcome: Outcome = result["outcome"]
        share = self.larger.get(number, self.share)
        if outcome.ending == "out_of_memory" and 0 < share.gpu < 1 and number not in self.larger:
            self.larger[number] = Share(share.cpu, min(1.0, 2 * share.gpu))
            self.ledger.again(number)
        else:
            self.ledger.tell(number, outcome)

    def lose(self, number: int, error: Exception | None) -> None:
        """Takes notice of a worker's death."""
        self.at_work.pop(number, None)
        if number in self.overdue:
            hours = self.ledger.sweep.trial_hours
            reason = f"it ran longer than `trial_hours: {hours:g}`"
            self.ledger.tell(number, Outcome("failed", reason=reason))
            return
        if "creation task" in str(error):
            raise StoreError(
                f"a worker must be able to start, but gave: {_told(error)}. "
                "Install the same versions on each node; `hemaml cluster check` compares them."
            )
        kills, self.memory_kills = self.memory_kills, memory_kills()
        for_memory = isinstance(error, OutOfMemoryError) or self.memory_kills > kills
        self.ledger.lose(number, Died(None, for_memory, _told(error)))

    def note_start(self, number: int, worker: Any) -> None:
        """Takes notice of which worker a trial is with, since now."""
        self.workers.add(worker)
        self.at_work[number] = (worker, time.monotonic())

    def kill_overdue(self) -> None:
        """Kills the workers of trials that have hung for longer than a trial may take."""
        for number, (worker, since) in self.at_work.items():
            if time.monotonic() - since > self.limit_s and number not in self.overdue:
                self.overdue.add(number)
                ray.kill(worker)

    def end_workers(self) -> None:
        """Returns once no worker is left that could still write to a store."""
        for worker in self.workers:
            with suppress(RayError, ValueError):
                ray.kill(worker)
        for worker in self.workers:
            with suppress(RayError):  # what a dead one answers
                ray.get(worker.get_current_ip_pid.remote(), timeout=KILL_WAIT_S)


class _Asking(Searcher):  # type: ignore[misc]
    """Tune's way to ask for trials and to tell of their ends."""

    def __init__(self, desk: _Desk) -> None:
        super().__init__()
        self.desk = desk
        self.assigned: dict[str, Assigned] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        self.desk.raise_fault()
        config = self.desk.next()
        if isinstance(config, dict):
            self.assigned[trial_id] = config["assigned"]
        return config

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        with self.desk.keeping_faults():
            number = self.assigned[trial_id].number
            self.desk.ledger.report(number, result["step"] - 1, result["value"])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        assigned = self.assigned.pop(trial_id)
        if result is not None:  # deaths are the scheduler's to hear of, which is told the cause
            with self.desk.keeping_faults():
                self.desk.end(assigned.number, result)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study has all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class _Winding(TrialScheduler):  # type: ignore[misc]
    """Asks a scheduler of Ray, and lets the trials that it stops wind up."""

    def __init__(self, desk: _Desk, scheduler: TrialScheduler) -> None:
        super().__init__()
        self.desk = desk
        self.scheduler = scheduler
        self.reported: dict[str, dict[str, Any]] = {}
        self.controller: Any = None

    def give_back(self) -> None:
        """Gives back what is reserved for trials, which Tune leaves so after a Ctrl-C."""
        if self.controller is None:
            return
        try:
            self.controller._tune_controller._actor_manager.cleanup()
        except Exception as error:  # of a manager interrupted halfway, or a cluster that is gone
            logger.warning("Ray may keep what it reserved for trials: %r", error)

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self.controller = tune_controller
        self.scheduler.on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        self.reported[trial.trial_id] = result
        decision = self.CONTINUE
        with self.desk.keeping_faults():
            decision = self.scheduler.on_trial_result(tune_controller, trial, result)
        if decision == self.STOP:
            trial.temporary_state.ray_actor.answer.remote(Stopped())  # is done before it goes on
        return str(self.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        self._forget(tune_controller, trial)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        self._forget(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        with self.desk.keeping_faults():
            self.desk.lose(trial.config["assigned"].number, _cause(trial))
        self._forget(tune_controller, trial)

    def _forget(self, tune_controller: Any, trial: Trial) -> None:
        """The scheduler learns the last report, never the outcome: that has no step."""
        last = self.reported.pop(trial.trial_id, None)
        if last is None:
            self.scheduler.on_trial_remove(tune_controller, trial)
        else:
            self.scheduler.on_trial_complete(tune_controller, trial, last)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        return self.scheduler.choose_trial_to_run(tune_controller)

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        return True

    def debug_string(self) -> str:
        return str(self.scheduler.debug_string())


class _Watching(Callback):  # type: ignore[misc]
    """Sees trials start, and looks at the clock between two events."""

    def __init__(self, desk: _Desk) -> None:
        self.desk = desk

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self.desk.note_start(trial.config["assigned"].number, trial.temporary_state.ray_actor)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self.desk.raise_fault()
        self.desk.kill_overdue()


def _cause(trial: Trial) -> Exception | None:
    """What a trial's worker died of, from where Tune has just written it."""
    if trial.pickled_error_file is None:
        return None
    with open(trial.pickled_error_file, "rb") as file:
        cause: Exception = cloudpickle.load(file)
    return cause


def _told(error: Exception | None) -> str:
    """The line of an error that tells most: of one that comes with a traceback, the last."""
    if isinstance(error, RayTaskError):
        return f"{type(error.cause).__name__}: {error.cause}"
    lines = [line.strip() for line in str(error or "no cause is known").splitlines()]
    lines = [line for line in lines if line]
    return lines[-1 if any("Traceback" in line for line in lines) else 0]


def _placement(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    return tune.PlacementGroupFactory([{"CPU": config["cpu"], "GPU": config["gpu"]}])


@contextmanager
def _scratch(sweep: Sweep) -> Iterator[str]:
    """A folder for what Tune writes, and its settings; both are gone afterwards."""
    settings = TUNE_SETTINGS | {"TUNE_MAX_PENDING_TRIALS_PG": str(sweep.workers)}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    folder = mkdtemp(prefix="hemaml-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
