"""Worker processes that evaluate trials for one parent, which alone talks to the study.

Workers are dumb: they take a trial, ask after each step whether to go on, and give back the
outcome. So a worker may die at any moment without harm to the search, and the parent knows
exactly which trial it takes with it.
"""

import contextlib
import multiprocessing as mp
import os
import signal
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from hemaml.core.errors import ConfigError, HemamlError, OutOfMemory, TrialError
from hemaml.core.search import Assigned, Evaluate, Outcome, Stopped

VMSTAT = Path("/proc/vmstat")
PRELOAD = ["hemaml.trial", "hemaml.tracking.mlflow_tracker", "torch"]
"""What the fork server imports once, so that a new worker starts in milliseconds."""


@dataclass(frozen=True, slots=True)
class Reported:
    """A step's value; the worker waits for `Worker.answer`."""

    step: int
    value: float


@dataclass(frozen=True, slots=True)
class Died:
    """The process ended without an outcome.

    Attributes:
        exit_code: Minus the signal that killed it; None where it is not known.
        out_of_memory: Whether it was killed while the system killed processes for their memory.
        told: What else is known of the cause.
    """

    exit_code: int | None
    out_of_memory: bool = False
    told: str = ""

    def __str__(self) -> str:
        cause = ": the system killed processes for lack of memory" if self.out_of_memory else ""
        return (self.told or f"exit code {self.exit_code}") + cause


@dataclass(frozen=True, slots=True)
class Refused:
    """The trial met an error that must end the whole search."""

    error: HemamlError


Message = Reported | Outcome | Died | Refused


class Worker:
    """One process and the trial it works on."""

    def __init__(self, evaluate: Evaluate, slot: int, num_workers: int) -> None:
        context = mp.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        self.slot = slot
        self.assigned: Assigned | None = None
        self._memory_kills = memory_kills()
        self._pipe, theirs = context.Pipe()
        arguments = (dict(os.environ), theirs, evaluate, slot, num_workers)
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pipe(self) -> Connection:
        """Readable when the worker has something to say, its death included."""
        return self._pipe

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process.pid is not None
        return self._process.pid

    def assign(self, assigned: Assigned) -> None:
        """Gives it a trial; a death meanwhile shows at the next `receive`."""
        self.assigned = assigned
        with contextlib.suppress(BrokenPipeError):
            self._pipe.send(assigned)

    def answer(self, *, stop: bool) -> None:
        """Answers a report."""
        with contextlib.suppress(BrokenPipeError):
            self._pipe.send(stop)

    def receive(self) -> Message:
        """What it says; call when `pipe` is readable."""
        try:
            message: Message = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            killed = self._process.exitcode == -signal.SIGKILL
            return Died(self._process.exitcode, killed and memory_kills() > self._memory_kills)
        return message

    def stop(self) -> None:
        """Ends the process, whatever it does."""
        self._process.kill()
        self._process.join()
        self._pipe.close()  # last: a trial that reports meanwhile would take it for an error


def ready(workers: Sequence[Worker]) -> Iterator[Worker]:
    """Waits until at least one of the workers has something to say, and yields those that do."""
    by_pipe = {worker.pipe: worker for worker in workers}
    for pipe in wait(list(by_pipe)):
        yield by_pipe[pipe]  # type: ignore[index]


def check_workers(num: int) -> None:
    """Raises `ConfigError` where nobody would work."""
    if num < 1:
        raise ConfigError(f"`workers >= 1` must hold, but got {num}. Leave it out for one process.")


def evaluate_all(evaluate: Evaluate, trials: Sequence[Assigned], num_workers: int) -> list[Outcome]:
    """Runs trials that need no search, in order of `trials`; none is stopped early.

    Raises:
        TrialError: A worker died; `OutOfMemory` where the system killed it for its memory.
        HemamlError: A trial met one that must end the whole, such as a `StoreError`.
    """
    num_workers = min(num_workers, len(trials))
    if num_workers <= 1:
        return [evaluate(trial, _go_on) for trial in trials]
    queue, outcomes = list(trials), dict[int, Outcome]()
    workers: list[Worker] = []
    try:
        for slot in range(num_workers):
            workers.append(Worker(evaluate, slot, num_workers))
            workers[-1].assign(queue.pop(0))
        while busy := [worker for worker in workers if worker.assigned]:
            for worker in ready(busy):
                match worker.receive():
                    case Reported():
                        worker.answer(stop=False)
                    case Outcome() as outcome:
                        assert worker.assigned is not None
                        outcomes[worker.assigned.number] = outcome
                        worker.assigned = None
                        if queue:
                            worker.assign(queue.pop(0))
                    case Refused(error):
                        raise error
                    case Died() as death:
                        kind = OutOfMemory if death.out_of_memory else TrialError
                        raise kind(
                            f"a worker must live until its work is done, but one died: {death}. "
                            "Run it again, with fewer workers where memory is short: what is "
                            "finished is taken over."
                        )
    finally:
        for worker in workers:
            worker.stop()
    return [outcomes[trial.number] for trial in trials]


def memory_kills() -> int:
    """Processes that Linux has killed for lack of memory since it started; 0 elsewhere."""
    try:
        lines = VMSTAT.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def _go_on(step: int, value: float) -> None:
    """A report to nobody."""


def _work(
    environment: Mapping[str, str],
    pipe: Connection,
    evaluate: Evaluate,
    slot: int,
    num_workers: int,
) -> None:
    os.environ.clear()  # else it would be that of the process's first search
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _die_with_parent()
    _take_share(slot, num_workers)

    def report(step: int, value: float) -> None:
        pipe.send(Reported(step, value))
        if pipe.recv():
            raise Stopped

    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            assigned = pipe.recv()
            try:
                message: Message = evaluate(assigned, report)
            except HemamlError as error:
                message = Refused(error)
            except Exception as error:  # no trial's own: as if it had ended the process
                traceback.print_exc()
                message = Died(1, told=f"{type(error).__name__}: {error}")
            pipe.send(message)


def _die_with_parent() -> None:
    """Ends this process as soon as the parent is gone, so that no trial outlives its search."""
    parent = mp.parent_process()
    assert parent is not None

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()


def _take_share(slot: int, num_workers: int) -> None:
    """Pins the worker to its GPU, round robin, and to its share of the cores."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // num_workers))
