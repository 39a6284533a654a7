"""Optuna's journal file, which a full disk or a kill in the middle of a line does not spoil.

All sweeps of a folder share one journal. Optuna appends to a line that its writer could not finish,
and that line, the next entry with it, can then be read by nobody.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

CHUNK = 1 << 16


def open_journal(path: Path) -> JournalStorage:
    """The studies in a journal file, which is created where there is none.

    Raises:
        OSError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=_MendingLock(path)))


@contextmanager
def held_journal(path: Path) -> Iterator[None]:
    """Writers of a journal, which exists, wait meanwhile, and all its lines are whole.

    Only for a moment: after half a minute Optuna takes the lock away.
    """
    lock = _MendingLock(path)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _MendingLock(JournalFileSymlinkLock):
    """Optuna's lock for writers; whoever holds it finds a journal of whole lines."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._journal = path

    def acquire(self) -> bool:
        """Waits for the lock, then drops what a writer before could not finish."""
        acquired = super().acquire()
        try:
            _drop_torn_line(self._journal)
        except BaseException:
            self.release()
            raise
        return acquired


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
