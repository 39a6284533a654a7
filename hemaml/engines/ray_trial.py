"""What runs inside a Ray worker: one trial, which goes on when Tune asks for its next step.

A stop reaches a trial at its report, as it does in the native engine: `answer` makes the report
raise `Stopped`, so that a stopped trial ends in its own words. Ray itself would kill it.
"""

import os
import queue
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from ray import tune

from hemaml.core.errors import HemamlError
from hemaml.core.search import Assigned, Evaluate, Exploit, Stopped

Word = Stopped | Exploit | None
"""What a report raises, if anything."""
GPU_WAIT_S = 30.0
"""A GPU whose memory is not free by then is used all the same: somebody else may have it."""


class RayTrial(tune.Trainable):  # type: ignore[misc]
    """One trial after the other; `config` has what was assigned and its share of the machine."""

    _answer: Word

    def setup(
        self, config: dict[str, Any], evaluate: Evaluate, environment: Mapping[str, str]
    ) -> None:
        """Takes what all trials share, once a worker.

        Args:
            config: Of the first trial.
            evaluate: Runs a trial.
            environment: Of the driver, as far as stores ask for it.
        """
        os.environ.update(environment)
        self._evaluate = evaluate
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes the next trial."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Lets the trial go on to its next report or its end."""
        self._go_on.put(self._answer)
        self._answer = None
        said = self._said.get()
        if isinstance(said, BaseException):
            raise said
        return said

    def answer(self, word: Word) -> None:
        """Lets the trial's latest report raise this once it goes on."""
        self._answer = word

    def _begin(self, config: dict[str, Any]) -> None:
        self._answer = None
        self._go_on: queue.SimpleQueue[Word] = queue.SimpleQueue()
        self._said: queue.SimpleQueue[dict[str, Any] | BaseException] = queue.SimpleQueue()
        take_share(config["cpu"], config["gpu"])
        arguments = (config["assigned"], self._go_on, self._said)
        threading.Thread(target=self._run, args=arguments, daemon=True).start()

    def _run(
        self,
        assigned: Assigned,
        go_on: "queue.SimpleQueue[Word]",
        said: "queue.SimpleQueue[Any]",
    ) -> None:
        def report(step: int, value: float) -> None:
            said.put({"step": step + 1, "value": value})  # Ray's schedulers count from 1
            if (word := go_on.get()) is not None:
                raise word

        go_on.get()
        try:
            said.put({"outcome": self._evaluate(assigned, report), "done": True})
        except HemamlError as error:
            said.put({"refused": error, "done": True})
        except BaseException as error:  # for `step` to raise where Ray looks for it
            said.put(error)


def take_share(cpu: float, gpu: float) -> None:
    """Keeps to as many threads as were given, and waits for what was given of a GPU."""
    threads = max(1, int(cpu))
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules or gpu:  # where it is not imported yet, it will ask the variable
        import torch

        torch.set_num_threads(threads)
        if gpu and torch.cuda.is_available():
            torch.cuda.empty_cache()
            await_gpu_memory(min(gpu, 1.0))


def await_gpu_memory(share: float, *, seconds: float = GPU_WAIT_S) -> bool:
    """Waits until a share of the GPU's memory is free: a stopped process gives it back late.

    Returns:
        Whether it came free in time.
    """
    import torch

    deadline = time.monotonic() + seconds
    while True:
        free, total = torch.cuda.mem_get_info()
        if free >= 0.9 * share * total:  # the driver and the context keep some for themselves
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
