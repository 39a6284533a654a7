"""What a backup says of itself, and whether it is still all there."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError

from hemaml.backup.databases import Kind, Role
from hemaml.core.errors import DataError
from hemaml.core.types import Frozen

NAME, FORMAT = "manifest.json", 1
ARTIFACTS = "artifacts"
SUFFIXES: dict[Kind, str] = {"sqlite": "sqlite", "journal": "journal", "postgresql": "dump"}
MOST_TOLD = 3
PACKAGES = ("hemaml", "mlflow", "optuna")


class Part(Frozen):
    """One database.

    Attributes:
        role: What it has.
        kind: What it was.
        revision: Of its tables; None of a journal, which has none.
        counts: Rows of each table that has any; of a journal, studies and trials.
    """

    role: Role
    kind: Kind
    revision: str | None
    counts: dict[str, int]

    @property
    def file(self) -> str:
        """Name of its file in the backup."""
        return file_name(self.role, self.kind)


class File(Frozen):
    """One file of a backup."""

    path: str
    size: int
    sha256: str


class Manifest(Frozen):
    """A whole backup.

    Attributes:
        format: Of this file.
        made: When, in ISO 8601.
        versions: Of the packages that made it.
        parts: Its databases.
        artifacts: Whether it has the files of runs and models, or databases alone.
        files: All files but this one.
    """

    format: int
    made: str
    versions: dict[str, str]
    parts: tuple[Part, ...]
    artifacts: bool
    files: tuple[File, ...]

    def part(self, role: Role) -> Part | None:
        """The database of a role."""
        return next((part for part in self.parts if part.role == role), None)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def file_name(role: Role, kind: Kind) -> str:
    """Of the file that has a database in a backup."""
    return f"{role}.{SUFFIXES[kind]}"


def versions() -> dict[str, str]:
    """Of the packages that a store depends on."""
    return {name: version(name) for name in PACKAGES}


def files_of(folder: Path) -> tuple[File, ...]:
    """All files of a folder, hashed; the manifest itself is left out."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / NAME)

    def hashed(path: Path) -> File:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return File(path=str(path.relative_to(folder)), size=path.stat().st_size, sha256=digest)

    with ThreadPoolExecutor() as pool:
        return tuple(pool.map(hashed, paths))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a backup, all of whose files are there and unchanged.

    Raises:
        DataError: The folder is no backup, a part of one, or a file has changed.
    """
    path = folder / NAME
    if not path.is_file():
        raise DataError(
            f"a backup is a folder with a {NAME}, but {folder} has none: it is another folder, or "
            "a backup that was not finished. Name a whole one."
        )
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(
            f"a backup's {NAME} must be as it was written, but {path} cannot be read "
            f"({error.error_count()} faults). Take another backup, or the hemaml that made this."
        ) from error
    if manifest.format != FORMAT:
        raise DataError(
            f"a backup must be of format {FORMAT}, but {folder} is of {manifest.format}. "
            "Restore it with the hemaml that made it."
        )
    there = {file.path: file for file in files_of(folder)}
    expected = {file.path: file for file in manifest.files}
    wrong = sorted(p for p in {*there, *expected} if there.get(p) != expected.get(p))
    if wrong:
        more = f" and {len(wrong) - MOST_TOLD} more" if len(wrong) > MOST_TOLD else ""
        raise DataError(
            f"a backup's files must be as they were written, but in {folder} these are missing, "
            f"changed or strange: {', '.join(wrong[:MOST_TOLD])}{more}. Take another backup."
        )
    return manifest
