"""A content-addressed cache of arrays, safe across processes.

A key names all that the value depends on: the content digest of the item, the operation, its
parameters and its version. So an entry is right forever or never found. Entries are written to a
temporary file and renamed, hence whole or absent after a kill. Results with and without the cache
are equal.
"""

import hashlib
import json
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock
from numpy.typing import NDArray

from hemaml.core.errors import StoreError
from hemaml.core.rows import Compute, Rows, RowTable, computed
from hemaml.core.types import Arrays, UInt8Array

GIB = 1 << 30
MEMORY_CAP = 2 * GIB
"""Bytes of decoded entries that one process keeps besides the files."""


def array_digest(array: UInt8Array) -> str:
    """Hex digest of an array's shape and content."""
    hasher = hashlib.blake2b(str(array.shape).encode(), digest_size=16)
    hasher.update(array.tobytes())
    return hasher.hexdigest()


@dataclass(frozen=True, slots=True)
class CacheUse:
    """Entries and bytes of one operation in the cache."""

    operation: str
    entries: int
    size: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, or the folder of a table: its bytes and when it was last used."""

    path: Path
    size: int
    used: float


class Cache:
    """Arrays by key, in memory and in files below a folder.

    One instance a process; the folder may be shared by any number of processes of one machine.

    Args:
        folder: Where entries are kept, or None to keep nothing (every call computes).
        cap: Bytes of files after which the longest unused entries are removed.
    """

    def __init__(self, folder: Path | None, *, cap: int = 20 * GIB) -> None:
        self.folder = folder
        self.cap = cap
        self._memory: OrderedDict[str, Arrays] = OrderedDict()
        self._memory_size = 0
        self._written = 0

    @classmethod
    def off(cls) -> "Cache":
        """A cache that keeps nothing."""
        return cls(None)

    def arrays(
        self, operation: str, key: dict[str, object], compute: Callable[[], Arrays]
    ) -> Arrays:
        """What `compute` gives for this key, computed once; the same for all processes.

        Where several compute it at the same time, all take what the first of them has written: a
        trained segmenter is not the same twice. The arrays are shared with later callers: do not
        write into them.

        Args:
            operation: Name of what is computed (`superpixels`); one folder each.
            key: All that the value depends on, as JSON values, with the operation's version.
            compute: Called on a miss; returns named arrays.

        Raises:
            StoreError: The folder cannot be written (full disk, rights).
        """
        if self.folder is None:
            return compute()
        digest = _hash(key)
        name = f"{operation}/{digest}"
        if name in self._memory:
            self._memory.move_to_end(name)
            return self._memory[name]
        path = self.folder / operation / digest[:2] / f"{digest}.safetensors"
        with self._faults():
            value = _read(path)
        if value is None:
            computed_here = compute()
            with self._faults():
                value = self._kept(path, computed_here)
        self._remember(name, value)
        return value

    def rows(
        self,
        operation: str,
        key: dict[str, object],
        items: Sequence[str],
        compute: Compute,
        *,
        batch: int = 64,
    ) -> Rows:
        """One array of a common shape for each item, each computed at most once.

        Kept in one memory-mapped table a key: any number of items fits, any subset is shared. With
        the cache off they are kept in memory.

        Args:
            operation: Name of what is computed (`pixels`, `embeddings`).
            key: All that a row depends on besides its item, with the operation's version.
            items: N content digests; copies of one image share a row.
            compute: Positions in `items` to their rows; called with at most `batch` of them.
            batch: Rows computed, and written, at once.

        Raises:
            StoreError: The folder cannot be written (full disk, rights).
        """
        if self.folder is None:
            return computed(len(items), compute, batch)
        digest = _hash(key)
        table = RowTable(self.folder / operation / digest[:2] / f"{digest}.rows")

        def counted(positions: Sequence[int]) -> NDArray[Any]:
            values = compute(positions)
            self._written += values.nbytes
            return values

        with self._faults():
            rows = table.rows(items, counted, batch)
        self._evict_sometimes()
        return replace(rows, origin=f"{operation}/{digest}")

    def use(self) -> list[CacheUse]:
        """Entries and bytes by operation."""
        found: dict[str, list[int]] = {}
        for entry in self._entries():
            assert self.folder is not None
            found.setdefault(entry.path.relative_to(self.folder).parts[0], []).append(entry.size)
        return [CacheUse(name, len(sizes), sum(sizes)) for name, sizes in sorted(found.items())]

    def clear(self) -> int:
        """Removes every entry; returns the bytes freed. Other files in the folder stay."""
        return self._evict(keep=0)

    def _remember(self, name: str, value: Arrays) -> None:
        self._memory[name] = value
        self._memory_size += sum(a.nbytes for a in value.values())
        while self._memory_size > MEMORY_CAP:
            _, old = self._memory.popitem(last=False)
            self._memory_size -= sum(a.nbytes for a in old.values())

    def _kept(self, path: Path, value: Arrays) -> Arrays:
        """The value once it is written; another one where a process has been faster."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parents[1] / "lock"):
            if (found := _read(path)) is not None:
                return found
            self._write(path, value)
        self._evict_sometimes()
        return value

    def _write(self, path: Path, value: Arrays) -> None:
        from safetensors.numpy import save

        content = save({k: v.copy(order="C") for k, v in value.items()})
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        self._written += len(content)

    def _evict_sometimes(self) -> None:
        if self._written > self.cap // 20:
            self._written = 0
            self._evict(keep=self.cap)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"the cache must be writable, but {self.folder} gave: {error.strerror}. "
                "Free space there (`hemaml cache clear`) or set HEMAML_CACHE to another folder."
            ) from error

    def _entries(self) -> list[Entry]:
        if self.folder is None or not self.folder.is_dir():
            return []
        found = []
        for path in self.folder.glob("*/??/*"):
            try:
                if path.suffix == ".safetensors":
                    stat = path.stat()
                    found.append(Entry(path, stat.st_size, stat.st_mtime))
                elif path.suffix == ".rows":
                    size = sum(file.stat().st_size for file in path.iterdir())
                    found.append(Entry(path, size, (path / "keys").stat().st_mtime))
            except FileNotFoundError:  # another process evicted it meanwhile, or fills it first
                continue
        return found

    def _evict(self, *, keep: int) -> int:
        entries = sorted(self._entries(), key=lambda entry: entry.used)
        total, freed = sum(entry.size for entry in entries), 0
        for entry in entries:
            if total - freed <= keep:
                break
            if entry.path.suffix == ".rows":
                freed += entry.size if RowTable(entry.path).remove() else 0
                continue
            entry.path.unlink(missing_ok=True)
            freed += entry.size
        return freed


def _hash(key: dict[str, object]) -> str:
    text = json.dumps(key, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _read(path: Path) -> Arrays | None:
    """The entry at `path`, or None where there is none or it is damaged.

    A damaged entry (a disk fault: our own writes are atomic) counts as absent, since computing it
    again gives the same value.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        content = path.read_bytes()
        os.utime(path)  # last use, for eviction
        return load(content)
    except FileNotFoundError:
        return None
    except SafetensorError:
        return None
