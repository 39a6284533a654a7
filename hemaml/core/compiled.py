"""The one way in which this package compiles a function with numba."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from numba import njit

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """The function as machine code, with its declared types.

    Compiled at the first call (some seconds), then kept on disk: beside the module, or where
    `NUMBA_CACHE_DIR` says. Runs without the interpreter lock, so threads may prepare several
    images at once.
    """
    return cast(Callable[P, R], njit(cache=True, nogil=True)(function))
