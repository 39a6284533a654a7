"""Unpacking of zip files that nobody vouches for."""

import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

from hemaml.core.errors import DataError, StoreError

MAX_RATIO = 200
"""Greatest ratio of unpacked to packed size; blank masks stay below, bombs are beyond 1000."""
SMALL = 64 << 20
"""Below this unpacked size the ratio does not matter."""
MAX_TOTAL = 500 << 30
"""Greatest unpacked size in bytes; the largest public set of the field has about 200 GB."""


def unpack_zip(archive: Path, folder: Path) -> None:
    """Unpacks into an existing, empty folder; checks all entries before the first is written.

    Args:
        archive: The zip file.
        folder: Where its content goes.

    Raises:
        DataError: No zip file, damaged, encrypted, an entry that leads out of the folder or is no
            plain file, too large or too dense.
        StoreError: The disk has no room for the content.
        OSError: The folder cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            entries = [entry for entry in file.infolist() if not _is_junk(entry)]
            _check_sizes(archive.name, entries, shutil.disk_usage(folder).free)
            for entry in entries:
                _check_entry(archive.name, entry)
            for entry in entries:
                # `extract` reads no more bytes than the entry declares, and checks its CRC.
                file.extract(entry, folder)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise DataError(
            f"{archive.name} must be a whole zip file, but: {error}. Download or pack it again."
        ) from error


def _is_junk(entry: zipfile.ZipInfo) -> bool:
    """What macOS adds: its `._001.bmp` would match patterns of images."""
    parts = PurePosixPath(entry.filename).parts
    return "__MACOSX" in parts or ".DS_Store" in parts


def _check_entry(archive: str, entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    # `extract` would quietly rename such entries; an archive that has them is not to be trusted.
    if posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
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
