"""Optuna's journal file, which a full disk or a kill in the middle of a line does not spoil.

All sweeps of a folder share one journal. Optuna appends to a line that its writer could not finish,
and that line, the next entry with it, can then be read by nobody. Its lock of writers outlives one
that is killed, and is taken away after half a minute; this one is freed with its process.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock

CHUNK = 1 << 16
POLL_S = 0.005
"""Between two looks at the lock; an entry is written within a few milliseconds."""


def open_journal(path: Path) -> JournalStorage:
    """The studies in a journal file, which is created where there is none.

    Raises:
        OSError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=_WriterLock(path)))


@contextmanager
def held_journal(path: Path) -> Iterator[None]:
    """Writers of a journal, which exists, wait meanwhile, and all its lines are whole."""
    lock = _WriterLock(path)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _WriterLock(BaseJournalFileLock):
    """Lets one writer in at a time, who finds a journal of whole lines."""

    def __init__(self, path: Path) -> None:
        self._journal = path
        self._lock = FileLock(f"{path}.writer")  # Optuna's own is `.lock`, a link to the journal

    def acquire(self) -> bool:
        """Waits for the lock, then drops what a writer before could not finish."""
        self._lock.acquire(poll_interval=POLL_S)
        try:
            _drop_torn_line(self._journal)
        except BaseException:
            self.release()
            raise
        return True

    def release(self) -> None:
        """Lets the next one write."""
        self._lock.release()


def _drop_torn_line(path: Path) -> None:
    """Cuts the file behind its last end of line."""
    with path.open("r+b") as file:
        end = size = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - CHUNK)
            file.seek(start)
            whole = file.read(end - start).rfind(b"\n")
            if whole >= 0:
                end = start + whole + 1
                break
            end = start
        if end < size:
            file.truncate(end)
