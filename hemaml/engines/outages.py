"""Calls of a study's storage that outlast an outage of its server.

A call whose answer is lost may have been carried out. So whatever is called here either may be
called twice, or says what to call instead the second time.
"""

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from hemaml.core import settings
from hemaml.engines.optuna_study import storage_errors

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
Result = TypeVar("Result")


def awaited(
    location: str, call: Callable[[], Result], again: Callable[[], Result] | None = None
) -> Result:
    """What a call of the storage gives; a server that is away is waited for.

    Args:
        location: Of the storage: a journal file, which is never away, or the URL of a server.
        call: Reads or writes.
        again: Is called instead once `call` has failed; default: `call`, which may then be done
            twice.

    Raises:
        StoreError: The storage does not work, or its server stayed away for `HEMAML_STORE_WAIT`.
    """
    wait = settings.store_wait() if _is_server(location) else 0.0
    deadline, pause = time.monotonic() + wait, FIRST_PAUSE_S
    with storage_errors(location):
        while True:
            try:
                return call()
            except Exception as error:
                if not (_is_away(error) and time.monotonic() + pause < deadline):
                    raise
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
            call = again or call


def _is_server(location: str) -> bool:
    return "://" in location and not location.startswith("sqlite")


def _is_away(error: BaseException) -> bool:
    """Whether the connection failed or broke, as far as drivers tell."""
    return any(
        isinstance(cause, OperationalError | InterfaceError)
        or (isinstance(cause, DBAPIError) and cause.connection_invalidated)
        for cause in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
