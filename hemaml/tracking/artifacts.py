"""Files that a record names by their locations, copied from and to wherever they are kept.

The rest of hemaml reads and writes artifacts by their run. Whoever copies a whole store has no run
at hand, but locations: `file:///...`, `mlflow-artifacts:/...` (the server's proxy), `s3://...`.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, cast
from urllib.parse import urlsplit

from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.file_utils import local_file_uri_to_path
from requests import RequestException

from hemaml.core.errors import StoreError
from hemaml.tracking.credentials import is_server, use_kept
from hemaml.tracking.mlflow_run import without_secret

PROXY = "mlflow-artifacts:/"
OF_S3 = ("boto3", "botocore", "s3transfer")
"""Modules of the errors of S3's client, which is installed where it is wanted."""
ATTEMPTS = 3
"""A file that changes while it is copied is copied again."""


class Artifacts:
    """Copies files of a store. Safe to use from many threads.

    Args:
        uri: Of the MLflow store, whose server hands `mlflow-artifacts:/` through.
        kept: Where that server keeps them, a folder or a URI such as `s3://bucket/folder`, for
            whoever can reach it directly; default: through the server.
    """

    def __init__(self, uri: str, kept: str | None = None) -> None:
        self.uri = uri
        self._kept = kept.rstrip("/") if kept else None
        self._proxy: Any = None
        if self._kept is None and is_server(uri):
            use_kept(uri)
            self._proxy = get_artifact_repository(PROXY, tracking_uri=uri)

    def fetch(self, location: str, folder: Path) -> None:
        """Copies all files of a location into a folder, which is not made where there are none.

        Raises:
            StoreError: A file cannot be read, or does not hold still.
        """
        if (local := self.local(location)) is not None:
            for path in _files(local):
                _copy(path, folder / path.relative_to(local))
            return
        repository, root = self._repository(location)
        with _told(location):
            for name, size in _listed(repository, root):
                target = folder / PurePosixPath(name).relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                _download(repository, name, target, size)

    def put(self, folder: Path, location: str) -> None:
        """Copies all files of a folder to a location; what is there stays or is overwritten.

        Raises:
            StoreError: A file cannot be written.
        """
        if (local := self.local(location)) is not None:
            shutil.copytree(folder, local, dirs_exist_ok=True)
            return
        repository, root = self._repository(location)
        with _told(location):
            repository.log_artifacts(str(folder), root or None)

    def _direct(self, location: str) -> str:
        if self._kept is None or not _is_proxied(location):
            return location
        return f"{self._kept}/{location.removeprefix(PROXY).lstrip('/')}"

    def local(self, location: str) -> Path | None:
        """The folder of a location on this machine, None of others."""
        location = self._direct(location)
        if not is_local(location):
            return None
        return Path(local_file_uri_to_path(location))  # type: ignore[no-untyped-call]

    def _repository(self, location: str) -> tuple[Any, str]:
        if self._proxy is not None and _is_proxied(location):
            return self._proxy, location.removeprefix(PROXY).strip("/")
        return get_artifact_repository(self._direct(location), tracking_uri=self.uri), ""


def is_local(location: str) -> bool:
    """Whether a location is a path or a `file:` URI."""
    return urlsplit(location).scheme in ("", "file")


def _is_proxied(location: str) -> bool:
    """Whether the server in use hands a location through; a host in it would name another."""
    parts = urlsplit(location)
    return f"{parts.scheme}:/" == PROXY and not parts.netloc


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in sorted(folder.rglob("*")) if path.is_file())


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(ATTEMPTS):
        before = source.stat()
        shutil.copy2(source, target)
        after = source.stat()
        same = (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
        if same and target.stat().st_size == after.st_size:
            return
    raise _restless(str(source))


def _listed(repository: Any, root: str) -> Iterator[tuple[str, int | None]]:
    for found in repository.list_artifacts(root or None):
        if found.is_dir:
            yield from _listed(repository, found.path)
        else:
            yield found.path, found.file_size


def _download(repository: Any, path: str, target: Path, size: int | None) -> None:
    for _ in range(ATTEMPTS):
        # What every repository implements; `download_artifacts` would ask twice more for each.
        repository._download_file(path, str(target))
        if size is None or target.stat().st_size == size:
            return
        folder = str(PurePosixPath(path).parent)
        again = {f.path: f.file_size for f in repository.list_artifacts(folder)}
        size = cast("int | None", again.get(path))
    raise _restless(path)


def _restless(path: str) -> StoreError:
    return StoreError(
        f"a file must hold still while it is copied, but {path} changed {ATTEMPTS} times. "
        "Try again once whatever writes it has ended."
    )


class _told:  # noqa: N801 - used like a function
    """Turns faults of a repository into `StoreError`s that name the location."""

    def __init__(self, location: str) -> None:
        self.location = location

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        known = isinstance(error, MlflowException | RequestException)
        if error is not None and (known or type(error).__module__.startswith(OF_S3)):
            cause = without_secret(str(error).partition("\n")[0])
            raise StoreError(
                f"artifacts must be readable and writable, but {self.location} gave: {cause}. "
                "Check the server, its artifact store and your rights."
            ) from error
