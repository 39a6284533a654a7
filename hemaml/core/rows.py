"""A table on disk of arrays of one shape by key, that grows and is read memory-mapped.

For what every image has one of and no computer holds in memory for all: decoded pixels at the
network's size, embeddings, activations. Data are written before the keys that make them valid, and
both only grow, so a kill leaves a shorter table, never a wrong one. Whoever computes holds a lock:
others wait and then find the rows.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from hemaml.core.types import Int64Array

Compute = Callable[[Sequence[int]], NDArray[Any]]
"""Positions among the asked-for items to their rows, len(positions) x row shape."""


@dataclass(frozen=True, slots=True)
class Rows:
    """N arrays of one shape. Indexing by positions reads those from disk, and copies them.

    Attributes:
        table: M x row shape, memory-mapped or in memory; never written to.
        places: N rows of the table.
    """

    table: NDArray[Any]
    places: Int64Array

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, positions: Sequence[int] | Int64Array | slice) -> NDArray[Any]:
        found: NDArray[Any] = self.table[self.places[positions]]
        return found

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one array."""
        return self.table.shape[1:]

    def batches(self, size: int) -> Iterator[NDArray[Any]]:
        """All rows in order, `size` at a time."""
        for first in range(0, len(self), size):
            yield self[first : first + size]


def computed(count: int, compute: Compute, batch: int) -> Rows:
    """Rows of all `count` items in memory."""
    table: NDArray[Any] | None = None
    for positions in _chunks(range(count), batch):
        values = compute(positions)
        if table is None:
            table = np.empty((count, *values.shape[1:]), values.dtype)
        table[positions] = values
    assert table is not None, "no items"
    return Rows(table, np.arange(count))


class RowTable:
    """The files of one table; any number of processes of one machine may use them at once.

    Args:
        folder: Holds `rows` (the arrays, one after the other), `keys` (a line each), `shape.json`
            and the lock; made if absent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = FileLock(folder / "lock")

    def rows(self, keys: Sequence[str], compute: Compute, batch: int) -> Rows:
        """The rows of `keys`; those that are not there are computed and added, `batch` at a time.

        Raises:
            OSError: The folder cannot be written.
        """
        assert keys, "no items"
        known = self._places()
        if any(key not in known for key in keys):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.lock:
                known = self._places()
                first = {key: position for position, key in enumerate(keys) if key not in known}
                for positions in _chunks(list(first.values()), batch):
                    self._append([keys[p] for p in positions], compute(positions), len(known))
                    known |= {keys[p]: len(known) + i for i, p in enumerate(positions)}
        os.utime(self.folder / "keys")  # last use, for eviction
        shape, dtype = self._row_type()
        table = np.memmap(self.folder / "rows", dtype, mode="r", shape=(len(known), *shape))
        return Rows(table, np.array([known[key] for key in keys], dtype=np.int64))

    def remove(self) -> bool:
        """Removes the table, unless some process fills it; whoever has it mapped keeps it."""
        try:
            with self.lock.acquire(timeout=0):
                shutil.rmtree(self.folder)
        except Timeout:
            return False
        return True

    def _places(self) -> dict[str, int]:
        """Row of each key; a line that a kill cut short does not count."""
        try:
            text = (self.folder / "keys").read_text(encoding="ascii")
        except FileNotFoundError:
            return {}
        return {key: place for place, key in enumerate(text.split("\n")[:-1])}

    def _append(self, keys: Sequence[str], values: NDArray[Any], count: int) -> None:
        if count == 0:
            row_type = {"shape": values.shape[1:], "dtype": values.dtype.str}
            (self.folder / "shape.json").write_text(json.dumps(row_type), encoding="ascii")
        assert (values.shape[1:], values.dtype) == self._row_type()
        with _opened(self.folder / "rows") as file:
            file.truncate(count * values[0].nbytes)
            file.seek(0, os.SEEK_END)
            file.write(np.ascontiguousarray(values).data)
        complete = "".join(f"{key}\n" for key in self._places())
        with _opened(self.folder / "keys") as file:
            file.truncate(len(complete))
            file.seek(0, os.SEEK_END)
            file.write("".join(f"{key}\n" for key in keys).encode("ascii"))

    def _row_type(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        row_type = json.loads((self.folder / "shape.json").read_bytes())
        return tuple(row_type["shape"]), np.dtype(row_type["dtype"])


def _opened(path: Path) -> Any:
    path.touch()
    return path.open("r+b")


def _chunks(positions: Sequence[int], size: int) -> Iterator[list[int]]:
    for first in range(0, len(positions), size):
        yield list(positions[first : first + size])
