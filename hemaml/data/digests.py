"""Digests of decoded files, remembered between processes.

A digest is taken of decoded content, so it needs the arrays; what is remembered is that a file of
this path, size and times had it. One JSON index per data set folder: read whole, written to a
temporary file and renamed. Processes that write at once lose each other's additions, which costs
a recomputation and nothing else; no lock is needed, on network folders neither.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hemaml.core.errors import StoreError

RACY_NS = 2_000_000_000
"""A file changed so shortly before it is read may change again within the clock's grain, and then
look the same: its digest is not remembered. Git does likewise with its index."""

Stamp = tuple[int, ...]


class FileDigests:
    """The remembered digests of one data set folder. Not thread-safe.

    Args:
        folder: Where indices are kept, or None to remember nothing.
        root: The data set's folder.
    """

    def __init__(self, folder: Path | None, root: Path) -> None:
        name = hashlib.blake2b(str(root.resolve()).encode(), digest_size=8).hexdigest()
        self._path = None if folder is None else folder / "digests" / f"{name}.json"
        self._entries = _read(self._path)
        self._changed = False

    def digest(self, key: str, stamp: Stamp, compute: Callable[[], str]) -> str:
        """The digest remembered for `key` and `stamp`, else what `compute` gives.

        Args:
            key: Names the files and the way they were decoded.
            stamp: `file_stamp` of the files, taken before they were opened.
            compute: Takes the digest.
        """
        digest = self.known(key, stamp)
        if digest is None:
            digest = compute()
            self.remember(key, stamp, digest)
        return digest

    def known(self, key: str, stamp: Stamp) -> str | None:
        """The digest remembered for `key` and `stamp`, or None."""
        entry = self._entries.get(key)
        return str(entry[-1]) if entry is not None and entry[:-1] == list(stamp) else None

    def remember(self, key: str, stamp: Stamp, digest: str) -> None:
        """Remembers a digest for `key` and `stamp`, unless the files are of this moment."""
        entry: list[int | str] = [*stamp, digest]
        if self._entries.get(key) != entry and time.time_ns() - max(stamp) > RACY_NS:
            self._entries[key] = entry
            self._changed = True

    def save(self) -> None:
        """Writes the index where it has changed.

        Raises:
            StoreError: The cache folder cannot be written.
        """
        if self._path is None or not self._changed:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._path.parent, suffix=".part")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(self._entries, file)
                os.replace(temporary, self._path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise StoreError(
                f"the cache must be writable, but {self._path.parent} gave: {error.strerror}. "
                "Free space there (`hemaml cache clear`) or set HEMAML_CACHE to another folder."
            ) from error
        self._changed = False


def file_stamp(*paths: Path) -> Stamp:
    """Size, time of change of content and time of change of inode of each file.

    The last catches a file replaced by one of equal size and copied time (`cp -p`, an archive).

    Raises:
        OSError: A file is not there.
    """
    stats = [path.stat() for path in paths]
    return tuple(n for stat in stats for n in (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))


def _read(path: Path | None) -> dict[str, list[int | str]]:
    """The index, or an empty one where there is none or it is damaged: it can be computed again."""
    if path is None or not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_bytes())
    except ValueError:
        return {}
    return entries if isinstance(entries, dict) else {}
