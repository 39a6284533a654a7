"""Image files that are decoded when asked for, with digests of their content known beforehand.

A set of any size is read without holding its pixels: each file is decoded once for its digest,
which is remembered by path, size and times, and later only where its pixels are used.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import overload

from hemaml.core.cache import array_digest
from hemaml.core.dataset import Chosen
from hemaml.core.settings import cache_root
from hemaml.core.types import UInt8Array
from hemaml.data.decode import DECODE_VERSION, decode_image
from hemaml.data.digests import FileDigests, Stamp, file_stamp
from hemaml.data.problems import BadFile


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file that decodes.

    Attributes:
        name: Its path relative to the root of the data set, with slashes.
        stamp: `file_stamp` from before it was decoded.
        digest: `array_digest` of its pixels.
    """

    name: str
    stamp: Stamp
    digest: str


@dataclass(frozen=True, slots=True)
class FileImages(Sequence[UInt8Array]):
    """H x W x 3 RGB images of files, decoded at each access. Safe to use from threads.

    An image that has changed since its digest was taken is a `DataError`: what is cached by digest
    would else belong to other pixels.
    """

    root: Path
    files: tuple[ImageFile, ...]

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, position: int) -> UInt8Array: ...
    @overload
    def __getitem__(self, position: slice) -> Chosen[UInt8Array]: ...
    def __getitem__(self, position: int | slice) -> UInt8Array | Chosen[UInt8Array]:
        if isinstance(position, slice):
            return Chosen(self, tuple(range(len(self))[position]))
        file = self.files[position]
        path = self.root / file.name
        image = decode_image(path, name=file.name)
        # A new stamp alone is no change: links, rights and copies alter it, too.
        if file_stamp(path) != file.stamp and array_digest(image) != file.digest:
            raise BadFile(
                file.name,
                "an image must not change while its data set is in use",
                "its pixels are others than when the set was read",
                "Start again.",
            )
        return image


def image_files(
    root: Path, names: Sequence[str], *, remembered: bool = True
) -> tuple[list[ImageFile], list[BadFile]]:
    """The files that decode, in the given order, and what is wrong with the others.

    Args:
        root: Folder of the data set.
        names: Paths relative to it.
        remembered: Whether a file whose digest is remembered is trusted instead of decoded.

    Raises:
        StoreError: The cache folder cannot be written.
    """
    memory = FileDigests(cache_root() if remembered else None, root)
    stamps = {name: stamp for name in names if (stamp := _stamp(root / name)) is not None}
    known = {name: memory.known(_key(name), stamp) for name, stamp in stamps.items()}
    unknown = [name for name in names if known.get(name) is None]
    with ThreadPoolExecutor(num_threads()) as pool:
        decoded = dict(zip(unknown, pool.map(partial(_digest, root), unknown), strict=True))
    files, faults = [], []
    for name in names:
        digest = known.get(name) or decoded[name]
        if isinstance(digest, BadFile):
            faults.append(digest)
            continue
        memory.remember(_key(name), stamps[name], digest)
        files.append(ImageFile(name, stamps[name], digest))
    memory.save()
    return files, faults


def num_threads() -> int:
    """Threads that decode side by side: the processors of this process, at most 8."""
    return min(8, len(os.sched_getaffinity(0)))


def _key(name: str) -> str:
    return f"{DECODE_VERSION}|{name}"


def _stamp(path: Path) -> Stamp | None:
    try:
        return file_stamp(path)
    except OSError:  # decoding it tells the reason
        return None


def _digest(root: Path, name: str) -> str | BadFile:
    try:
        return array_digest(decode_image(root / name, name=name))
    except BadFile as fault:
        return fault
