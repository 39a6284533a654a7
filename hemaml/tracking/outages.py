"""How long MLflow's client tries again while its server is away, and what it must not do twice.

The waiting is MLflow's own, which reads the number of its retries from the environment at each
request. It asks again whatever the request was, also where only the answer was lost.
"""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from mlflow.exceptions import MlflowException, RestException

from hemaml.core import settings

RETRIES, MOST_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", 10
FIRST_RETRIES = 2
"""A server that is not there is told within seconds, before anything has begun."""
ATTEMPTS = 3
REQUEST = "request"
"""Tag of what was made by a request: finds it again where the answer was lost."""
UNKNOWN, DENIED = REFUSED = ("UNAUTHENTICATED", "PERMISSION_DENIED")
"""What MLflow makes of a server's plain words to whom it does not know, or does not allow it."""
Made = TypeVar("Made")


def num_retries(wait_s: float) -> int:
    """The fewest retries whose pauses (0, 4, 8 ... at most 120 s) add up to a wait."""
    total, number = 0.0, 1
    while total < wait_s and number < MOST_RETRIES:
        number += 1
        total += min(2.0**number, 120.0)
    return number


os.environ.setdefault(RETRIES, str(num_retries(settings.store_wait())))
_answered: set[str] = set()
"""Servers that have answered this process: their silence is an outage, no wrong address."""
_given_up: list[str] = []
"""The number of retries before this process gave up."""


@contextmanager
def first_contact(uri: str, *, met: bool) -> Iterator[None]:
    """Waits for a server only if it has answered before, in this process or to its parent."""
    if _given_up:  # in what has ended meanwhile
        os.environ[RETRIES] = _given_up.pop()
    patient = int(os.environ[RETRIES])
    with _retries(patient if met or uri in _answered else min(FIRST_RETRIES, patient)):
        yield
    _answered.add(uri)


@contextmanager
def briefly() -> Iterator[None]:
    """Does not wait for a server that is away: for who will ask again in a moment anyway."""
    with _retries(0):
        yield


def note_silence(error: BaseException) -> None:
    """Does not wait again, in this process, for a server that was waited for in vain.

    What is left to do is to end; each of the last words would wait as long.
    """
    if _is_silence(error) and os.environ[RETRIES] != "0":
        _answered.clear()
        _given_up.append(os.environ[RETRIES])
        os.environ[RETRIES] = "0"


def once(create: Callable[[Mapping[str, str]], Made], find: Callable[[str], Made | None]) -> Made:
    """Makes something once, though the answer may be lost on the way: then it is looked for.

    Args:
        create: Makes it, with these tags.
        find: Finds it by a filter of MLflow.

    Raises:
        MlflowException: The server refuses, or stayed away for as long as MLflow waits.
    """
    tags = {REQUEST: secrets.token_hex(8)}
    for _ in range(ATTEMPTS):
        try:
            with _retries(0):
                return create(tags)
        except MlflowException as error:
            if not _is_silence(error):
                raise
        if (made := find(f"tags.{REQUEST} = '{tags[REQUEST]}'")) is not None:  # waits
            return made
    return create(tags)


def _is_silence(error: BaseException) -> bool:
    """Whether a server gave no answer of its own; 500 and the like are none."""
    return (
        isinstance(error, MlflowException)
        and not isinstance(error, RestException)
        and error.error_code not in REFUSED
        and str(error).startswith("API request to ")
    )


@contextmanager
def _retries(number: int) -> Iterator[None]:
    before = os.environ[RETRIES]
    os.environ[RETRIES] = str(number)
    try:
        yield
    finally:
        os.environ[RETRIES] = before
