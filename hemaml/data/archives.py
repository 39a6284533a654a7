"""Unpacking of zip files that nobody vouches for."""

import shutil
import stat
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

from hemaml.core.errors import DataError, StoreError

MAX_RATIO = 200
"""Greatest ratio of unpacked to packed size; blank masks stay below, bombs are beyond 1000."""
SMALL = 64 << 20
"""Below this unpacked size the ratio does not matter."""
MAX_TOTAL = 500 << 30
"""Greatest unpacked size in bytes; the largest public set of the field has about 200 GB."""
CHUNK = 1 << 16


def unpack_zip(archive: Path, folder: Path, *, name: str) -> None:
    """Unpacks into an existing, empty folder; checks all entries before the first is written.

    Args:
        archive: The zip file.
        folder: Where its content goes.
        name: What messages call the archive.

    Raises:
        DataError: No zip file, damaged, encrypted, an entry that leads out of the folder or is no
            plain file, two entries of one name, too large or too dense.
        StoreError: The disk has no room for the content.
        OSError: The archive cannot be opened, or the folder cannot be written.
    """
    with archive.open("rb") as raw:
        with _reading(name):
            file = zipfile.ZipFile(raw)
        entries = [entry for entry in file.infolist() if not _is_junk(entry)]
        _check_sizes(name, entries, shutil.disk_usage(folder).free)
        for entry in entries:
            _check_entry(name, entry)
        _check_names(name, entries)
        for entry in entries:
            path = folder / entry.filename
            if entry.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            # Not "wb": a disk may take for one name what we take for two (upper and lower case).
            with path.open("xb") as target:
                for chunk in _chunks(file, entry, name):
                    target.write(chunk)


def _chunks(file: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> Iterator[bytes]:
    # zipfile yields no more bytes than the entry declares, and checks its CRC at the end.
    with _reading(name), file.open(entry) as source:
        while chunk := source.read(CHUNK):
            yield chunk


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """What fails in here is damage to the archive; outside of it an OSError is the disk's."""
    try:
        yield
    except Exception as error:  # each decompressor raises its own; that of bz2 an OSError
        raise DataError(
            f"{name} must be a whole zip file, but: {str(error) or type(error).__name__}. "
            "Download or pack it again."
        ) from error


def _is_junk(entry: zipfile.ZipInfo) -> bool:
    """What macOS adds: its `._001.bmp` would match patterns of images."""
    parts = PurePosixPath(entry.filename).parts
    return "__MACOSX" in parts or ".DS_Store" in parts


def _check_entry(archive: str, entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    # An archive that has such entries is not to be trusted.
    if not name or posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        found = f"the entry {name!r} leads out of it"
    elif stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        found = f"the entry {name!r} is a link or a device"
    elif entry.flag_bits & 1:
        found = f"the entry {name!r} is encrypted"
    else:
        return
    raise DataError(
        f"{archive} must hold plain files below its own folder, but {found}. "
        "Get the data from a source you trust, or unpack it by hand and import the folder."
    )


def _check_names(archive: str, entries: list[zipfile.ZipInfo]) -> None:
    files = Counter(PurePath(entry.filename) for entry in entries if not entry.is_dir())
    # With a letter added, the name of a folder too is that of something in it.
    folders = {path for entry in entries for path in PurePath(entry.filename + "_").parents}
    for path, count in files.items():
        if count > 1 or path in folders:
            raise DataError(
                f"{archive} must hold each name once, but {str(path)!r} stands for two files, or "
                "for a file and a folder. Pack it again, or import the folder it came from."
            )


def _check_sizes(archive: str, entries: list[zipfile.ZipInfo], free: int) -> None:
    total = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    if total > MAX_TOTAL or (total > SMALL and total > MAX_RATIO * packed):
        raise DataError(
            f"{archive} must unpack to at most {MAX_TOTAL:,} bytes and {MAX_RATIO} times its size, "
            f"but {packed:,} bytes would become {total:,}. "
            "If you trust it, unpack it by hand and import the folder."
        )
    if total > free:
        raise StoreError(
            f"the disk must have room for {total:,} bytes of {archive}, but {free:,} are free. "
            "Free space, or import to another disk."
        )
