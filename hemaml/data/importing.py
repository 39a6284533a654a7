"""Import of a data set from a folder, a zip file or a URL: whole, or not at all."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from filelock import FileLock, Timeout

from hemaml.core.errors import ConfigError, DataError, StoreError
from hemaml.core.staging import staging
from hemaml.data.archives import unpack_zip
from hemaml.data.download import Progress, discard, download, shown_url


def import_dataset(
    source: str, target: Path, *, checksum: str | None = None, progress: Progress | bool = False
) -> Path:
    """Brings a data set to `target`, which exists afterwards only if all of it is there.

    A download is kept beside `target` until it is unpacked; after whatever breaks off, the same
    call goes on from there. Where an archive holds one folder and nothing else, the content of
    that folder is taken.

    Args:
        source: A folder, a zip file, or a file, http or https URL of a zip file.
        target: The folder to make; must not exist.
        checksum: SHA-256 of the zip file in hex, with or without `sha256:` before it.
        progress: Told of bytes done and in all; True shows a bar on stderr.

    Returns:
        `target`, resolved.

    Raises:
        ConfigError: `source` is none of the above, or `checksum` is no SHA-256.
        DataError: `target` exists; the download fails; the checksum differs; the archive is
            damaged or not safe.
        StoreError: The disk of `target` is full or cannot be written.
    """
    target = target.expanduser().resolve()
    expected = _parse_checksum(checksum)
    if target.exists():
        raise DataError(
            f"the target must not exist, but {target} does. Remove it, or choose another."
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if _is_web(source):
            with _alone(target):
                _import_url(source, target, expected, progress)
        else:
            _import_path(_local_path(source), target, expected)
    except OSError as error:
        raise StoreError(
            f"the import must be able to read {shown_source(source)} and to write to "
            f"{target.parent}, but: {error.strerror or error}. Nothing was left in place of "
            f"{target.name!r}. Free space or correct the rights, and run it again."
        ) from error
    return target


def shown_source(source: str) -> str:
    """The source as it may be shown and recorded: URLs without user, password and query."""
    return shown_url(source) if _is_web(source) else source


def _is_web(source: str) -> bool:
    try:
        parts = urlsplit(source)
        _ = parts.port  # which raises where it is no port
        if parts.scheme in ("http", "https") and not parts.hostname:
            raise ValueError("no host")
    except ValueError as error:
        shown = re.sub(r"//.*@.*|\?.*", "...", source)  # as in `shown_url`, nothing secret
        raise ConfigError(
            f"a URL must be like https://host:8080/set.zip, but got {shown!r}. Correct it."
        ) from error
    return parts.scheme in ("http", "https")


def _import_url(url: str, target: Path, expected: str | None, progress: Progress | bool) -> None:
    part = target.with_name(f".{target.name}.part")
    with _reporting(progress, target.name) as report:
        download(url, part, progress=report)
    try:
        _import_zip(part, target, expected, name=shown_url(url))
    except DataError:
        discard(part)  # to go on from a file that is wrong would fail for ever
        raise
    discard(part)


def _import_path(path: Path, target: Path, expected: str | None) -> None:
    if path.is_file():
        _import_zip(path, target, expected, name=path.name)
    elif expected:
        raise ConfigError(f"a checksum is for a zip file, but {str(path)!r} is a folder. Leave it.")
    elif target.is_relative_to(path.resolve()):
        raise ConfigError(f"the target must lie outside the source, but {target} lies in {path}.")
    else:
        with staging(target) as folder:
            shutil.copytree(path, folder, dirs_exist_ok=True)
            os.replace(folder, target)


def _import_zip(archive: Path, target: Path, expected: str | None, *, name: str) -> None:
    if expected:
        with archive.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise DataError(
                f"{name} must have the SHA-256 {expected}, but it has {found}. "
                "Download it again; if it still differs, ask its publisher."
            )
    with staging(target) as folder:
        unpack_zip(archive, folder, name=name)
        content = list(folder.iterdir())
        if not content:
            raise DataError(f"{name} must hold files, but it is empty. Pack it again.")
        sole = len(content) == 1 and content[0].is_dir()
        os.replace(content[0] if sole else folder, target)


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Keeps a second process from writing into the same download."""
    lock = FileLock(target.with_name(f".{target.name}.lock"), blocking=False)
    try:
        with lock:
            try:
                yield
            finally:
                Path(lock.lock_file).unlink(missing_ok=True)
    except Timeout as error:
        raise StoreError(
            f"one import at a time may write to {target}, but another is at work. Wait for it."
        ) from error


def _local_path(source: str) -> Path:
    parts = urlsplit(source)
    if parts.scheme == "file":
        path = Path(url2pathname(parts.path))
    elif "://" in source:
        raise ConfigError(f"the scheme must be file, http or https, but got {parts.scheme!r}.")
    else:
        path = Path(source).expanduser()
    if not path.exists():
        raise ConfigError(
            f"the source must be a folder, a zip file or a URL, but {source!r} is none of them. "
            "Correct the path."
        )
    return path


def _parse_checksum(checksum: str | None) -> str | None:
    if checksum is None:
        return None
    value = checksum.strip().lower().removeprefix("sha256:")
    if len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise ConfigError(f"a checksum must be 64 hex digits of SHA-256, but got {checksum!r}.")
    return value


@contextmanager
def _reporting(progress: Progress | bool, name: str) -> Iterator[Progress]:
    """What the download reports to: the caller's function, a bar, or nothing."""
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda done, total: None
    else:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = ("{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Bar(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(name, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
