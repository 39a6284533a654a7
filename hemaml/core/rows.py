"""A table on disk of arrays of one shape by key, that grows and is read memory-mapped.

For what every image has one of and no computer holds in memory for all: decoded pixels at the
network's size, embeddings, activations. Data are written before the keys that make them valid, and
both only grow, so a kill leaves a shorter table, never a wrong one. Whoever computes holds a lock:
others wait and then find the rows.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

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
        origin: Names how they were made, from which items aside; empty where nothing is kept.
            Belongs into the key of what is made from them.
    """

    table: NDArray[Any]
    places: Int64Array
    origin: str = ""

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
        while True:
            self._fill(keys, compute, batch)
            found = self._mapped(keys)
            if found is not None:  # else another process removed the table in between
                return found

    def remove(self) -> bool:
        """Empties the table, unless some process fills it; whoever has it mapped keeps its rows.

        The folder and the lock stay, since others may be waiting for it.
        """
        try:
            with self.lock.acquire(timeout=0):
                for name in ("keys", "rows", "shape.json"):  # keys first: see `_mapped`
                    (self.folder / name).unlink(missing_ok=True)
        except Timeout:
            return False
        return True

    def _fill(self, keys: Sequence[str], compute: Compute, batch: int) -> None:
        """Computes and adds the rows of keys that are not there."""
        known = self._places()
        if all(key in known for key in keys):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.lock:
            known = self._places()
            missing = {key: position for position, key in enumerate(keys) if key not in known}
            there = list(known)
            for positions in _chunks(list(missing.values()), batch):
                added = [keys[p] for p in positions]
                self._append(there, added, compute(positions))
                there += added

    def _mapped(self, keys: Sequence[str]) -> Rows | None:
        """The rows of `keys`, or None where the table has been removed since they were there."""
        try:
            with self._open("keys") as key_file, self._open("rows") as row_file:
                shape, dtype = self._row_type()
                known = self._complete(key_file, row_file)
                if any(key not in known for key in keys):
                    return None
                table = np.memmap(row_file, dtype, mode="r", shape=(len(known), *shape))
                # Rows of a table that was made anew meanwhile would be in another order: as long
                # as the keys are not unlinked, rows that were opened after them are theirs.
                if os.fstat(key_file.fileno()).st_nlink == 0:
                    return None
                os.utime(key_file.fileno())  # last use, for eviction
        except FileNotFoundError:
            return None
        return Rows(table, np.array([known[key] for key in keys], dtype=np.int64))

    def _places(self) -> dict[str, int]:
        """Row of each key."""
        try:
            with self._open("keys") as key_file, self._open("rows") as row_file:
                return self._complete(key_file, row_file)
        except FileNotFoundError:
            return {}

    def _complete(self, key_file: BinaryIO, row_file: BinaryIO) -> dict[str, int]:
        """Row of each key: not of a line that a kill cut short, nor where the row is not whole."""
        shape, dtype = self._row_type()
        size = os.fstat(row_file.fileno()).st_size
        whole = size // (math.prod(shape) * dtype.itemsize)
        lines = key_file.read().decode("ascii").split("\n")[:-1]
        return {key: place for place, key in enumerate(lines[:whole])}

    def _append(self, known: Sequence[str], keys: Sequence[str], values: NDArray[Any]) -> None:
        """Adds rows behind those that are known; what a kill left behind them is cut off."""
        if not known:
            self._begin(values)
        assert (values.shape[1:], values.dtype) == self._row_type()
        with self._open("rows", "r+b") as file:
            file.truncate(len(known) * values[0].nbytes)
            file.seek(0, os.SEEK_END)
            file.write(np.ascontiguousarray(values).data)
        with self._open("keys", "r+b") as file:
            file.truncate(sum(len(key) + 1 for key in known))
            file.seek(0, os.SEEK_END)
            file.write("".join(f"{key}\n" for key in keys).encode("ascii"))

    def _begin(self, values: NDArray[Any]) -> None:
        """New files: others may still have those mapped that a killed removal left behind."""
        for name in ("keys", "rows"):
            (self.folder / name).unlink(missing_ok=True)
            (self.folder / name).touch()
        row_type = {"shape": values.shape[1:], "dtype": values.dtype.str}
        temporary = self.folder / "shape.part"
        temporary.write_text(json.dumps(row_type), encoding="ascii")
        temporary.replace(self.folder / "shape.json")

    def _open(self, name: str, mode: Literal["rb", "r+b"] = "rb") -> BinaryIO:
        return (self.folder / name).open(mode)

    def _row_type(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        row_type = json.loads((self.folder / "shape.json").read_bytes())
        return tuple(row_type["shape"]), np.dtype(row_type["dtype"])


def _chunks(positions: Sequence[int], size: int) -> Iterator[list[int]]:
    for first in range(0, len(positions), size):
        yield list(positions[first : first + size])
