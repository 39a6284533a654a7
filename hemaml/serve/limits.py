"""How much is taken on at once: one thread that works, a bound of who waits for it.

A model is not made for several threads, and torch keeps a pool of its own for each thread that
computes: so all work is done in one, and torch spreads it over the processors.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from threading import BoundedSemaphore
from typing import TypeVar

from hemaml.serve.problems import Refused

REMEMBERED = 32
"""Recent pieces of work, of which the time to wait is told."""
T = TypeVar("T")


class Desk:
    """Does work in one thread, in order; refuses what would wait too long.

    Args:
        bound: Pieces of work that wait or are being done.
    """

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self._free = BoundedSemaphore(bound)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inference")
        self._seconds: deque[float] = deque(maxlen=REMEMBERED)

    def do(self, work: Callable[[], T]) -> T:
        """The result of the work, once it is its turn.

        Raises:
            Refused: 503, with the seconds after which there will be room.
        """
        if not self._free.acquire(blocking=False):
            wait = self._wait_s()
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"at most {self.bound} requests wait at once",
                "so many do",
                f"Ask again in {wait} s.",
                {"Retry-After": str(wait)},
            )
        try:
            return self._thread.submit(self._timed, work).result()
        finally:
            self._free.release()

    def close(self) -> None:
        """Ends the thread after the work that waits."""
        self._thread.shutdown()

    def _timed(self, work: Callable[[], T]) -> T:
        started = time.perf_counter()
        try:
            return work()
        finally:
            self._seconds.append(time.perf_counter() - started)

    def _wait_s(self) -> int:
        """Until half of who waits now is done; a second at least."""
        seconds = list(self._seconds)
        each = sum(seconds) / len(seconds) if seconds else 1.0
        return max(1, math.ceil(each * self.bound / 2))
