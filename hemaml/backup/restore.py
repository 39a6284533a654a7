"""A backup brought back into the stores in use."""

import re
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.exc import DatabaseError, OperationalError

from hemaml.backup import backup, check_free, told_faults
from hemaml.backup.databases import Database, JournalFile, Role, SqliteFile, in_use, sqlite_engine
from hemaml.backup.manifest import ARTIFACTS, Manifest, Part, read_manifest
from hemaml.backup.owners import Owner, folder_of, for_each, read_owners, relocate
from hemaml.backup.stores import Stores, stores_in_use
from hemaml.core import settings
from hemaml.core.errors import ConfigError, StoreError
from hemaml.core.staging import staging
from hemaml.tracking.artifacts import Artifacts
from hemaml.tracking.schema import known_revisions

PLAIN = re.compile(r"[\w-]+")
OF_NO_RUN = "-of-no-run"
"""Ends the name of a folder beside the backup of what is replaced, for files that no run has."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What was brought back.

    Attributes:
        manifest: Of the backup.
        outdated: Whether the tables of the record are older than the installed MLflow's.
    """

    manifest: Manifest
    outdated: bool


def restore(
    folder: str | Path, *, replace: str | Path | None = None, kept: str | None = None
) -> Restored:
    """Brings a backup back into the stores in use, which nobody may use meanwhile.

    All that can be checked is checked first. Where it fails later, the same call does it again,
    with `replace` if it had got so far that something is there.

    Args:
        folder: The backup.
        replace: What the stores have is first backed up into this folder, then replaced. An
            embedded store that is damaged is moved there as it is, and files that no run has into
            a folder beside it. Default: stores that have anything are refused.
        kept: Where an MLflow server keeps artifacts, as `Artifacts` takes it; default: through the
            server.

    Raises:
        DataError: The backup is not whole.
        ConfigError: It is of other kinds of databases, or the stores are in use.
        StoreError: A store or the disk fails.
    """
    source = Path(folder).resolve()
    manifest, stores = read_manifest(source), stores_in_use()
    pairs = _paired(manifest, stores)
    outdated = _outdated(manifest)
    kept_before = Path(replace).resolve() if replace is not None else None
    if kept_before is not None:
        check_free(kept_before)
        check_free(kept_before.with_name(kept_before.name + OF_NO_RUN))
    with told_faults("a look at what is to be replaced"):
        _check_unused(manifest, stores, kept_before)
        if kept_before is not None:
            _keep(stores, kept_before, kept, artifacts=manifest.artifacts)
    with told_faults(f"the restoration from {source}"), ExitStack() as prepared:
        files = {database: source / part.file for database, part in pairs.items()}
        if manifest.artifacts:
            record = stores.record
            if isinstance(record, SqliteFile) and settings.tracking_uri().startswith("sqlite"):
                files[record] = _prepare_embedded(source, record, pairs[record], prepared)
            else:
                _put(source, kept)
        for database, part in pairs.items():
            database.restore(files[database])
            _check_counts(database, part)
    return Restored(manifest, outdated)


def _paired(manifest: Manifest, stores: Stores) -> dict[Database, Part]:
    """Each database of the stores with its part of the backup."""
    pairs = {database: manifest.part(database.role) for database in stores.databases}
    told = {part.role: part.kind for part in manifest.parts}
    wanted = {database.role: database.kind for database in stores.databases}
    if told != wanted:
        raise ConfigError(
            "a backup is restored into databases of the kinds that it was made of, but it has "
            f"{_listed(told)} and the stores in use are {_listed(wanted)}. Point the settings at "
            "such stores; `hemaml migrate` moves an embedded store into a server."
        )
    return {database: part for database, part in pairs.items() if part is not None}


def _listed(kinds: Mapping[Role, str]) -> str:
    return ", ".join(f"{role} in {kind}" for role, kind in sorted(kinds.items()))


def _outdated(manifest: Manifest) -> bool:
    """Whether the record is older than the installed MLflow; one that is newer is refused."""
    record = manifest.part("record")
    assert record is not None
    if record.revision is not None and record.revision not in known_revisions():
        raise StoreError(
            f"a backup must not be newer than what is installed, but the tables of its record are "
            f"of {record.revision}, made by MLflow {manifest.versions['mlflow']}. Install that."
        )
    return record.revision != known_revisions()[0]


def _check_unused(manifest: Manifest, stores: Stores, replace: Path | None) -> None:
    """Raises `ConfigError` where anything would be lost."""
    if replace is not None:
        return
    if not manifest.artifacts:
        raise ConfigError(
            "a backup of databases alone goes back to where its files still are, in place of the "
            "databases there. Say so by --replace FOLDER, which backs these up first."
        )
    for database in stores.databases:
        if in_use(database):
            raise ConfigError(
                f"a backup is restored into stores that are empty, but {database.place} has "
                f"{database.role}. Restore elsewhere, or by --replace FOLDER, which backs up what "
                "is there first."
            )
    files = stores.folder / ARTIFACTS if stores.folder is not None else None
    if files is not None and any(path.is_file() for path in files.rglob("*")):
        raise ConfigError(
            f"a backup is restored into stores that are empty, but {files} has files that no run "
            "has. Move that folder away."
        )


def _keep(stores: Stores, folder: Path, kept: str | None, *, artifacts: bool) -> None:
    """Backs up what the stores have; moves what of an embedded one no backup would have."""
    owned: list[Owner] = []
    aside = folder.with_name(folder.name + OF_NO_RUN)
    if _is_damaged(stores):
        aside = folder / ARTIFACTS
        for database in stores.databases:
            assert isinstance(database, SqliteFile | JournalFile)
            for path in database.path.parent.glob(f"{database.path.name}*"):
                _move(path, folder / path.name)
    elif any(database.counts() for database in stores.databases):
        backup(folder, kept=kept, artifacts=artifacts)
        owned = read_owners(folder) if artifacts else []
        if isinstance(stores.record, SqliteFile):
            stores.record.check_alone()  # before any file is moved
    if artifacts and stores.folder is not None:
        here, place = Artifacts(""), stores.folder / ARTIFACTS
        folders = {here.local(owner.location) for owner in owned}
        for path in [path for path in place.rglob("*") if path.is_file()]:
            if folders.isdisjoint(path.parents):
                _move(path, aside / path.relative_to(place))


def _is_damaged(stores: Stores) -> bool:
    """Whether an embedded store cannot be read, or has lost its record."""
    if stores.folder is None:
        return False
    assert isinstance(stores.record, SqliteFile)
    try:
        has_any = any([database.counts() for database in stores.databases])
        return has_any and not stores.record.is_whole()
    except OperationalError:  # it is locked, or the disk fails
        raise
    except (DatabaseError, StoreError):
        return True


def _move(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(path, target)


def _put(source: Path, kept: str | None) -> None:
    """Hands the files of runs and models to the server, to the places that they had."""
    artifacts, root = Artifacts(settings.tracking_uri(), kept), source / ARTIFACTS
    for_each(
        [owner for owner in read_owners(source) if folder_of(root, owner).is_dir()],
        lambda owner: artifacts.put(folder_of(root, owner), owner.location),
    )


def _prepare_embedded(source: Path, record: SqliteFile, part: Part, prepared: ExitStack) -> Path:
    """Puts the files of runs and models into place; returns the record that names these places."""
    record.check_alone()
    folder = record.path.parent.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    staged = prepared.enter_context(staging(folder / ARTIFACTS))
    shutil.copy(source / part.file, staged / part.file)
    new, place = staged / ARTIFACTS, folder / ARTIFACTS
    new.mkdir()
    with sqlite_engine(staged / part.file).connect() as rows:
        rows.exec_driver_sql("begin immediate")
        experiments = rows.exec_driver_sql("select experiment_id, name from experiments").all()
        roots = {number: place / _folder_name(number, name) for number, name in experiments}
        owned = relocate(rows, lambda number: roots[number].as_uri())
        rows.exec_driver_sql("commit")
    artifacts = Artifacts(settings.tracking_uri())

    def put(owner: Owner) -> None:
        held = folder_of(source / ARTIFACTS, owner)
        if held.is_dir():
            artifacts.put(held, owner.location.replace(place.as_uri(), new.as_uri(), 1))

    for_each(owned, put)
    if place.exists():
        place.rename(staged / "before")
    new.rename(place)
    return staged / part.file


def _folder_name(number: int, name: str) -> str:
    """Of an experiment: hemaml's are named as their task."""
    return name if PLAIN.fullmatch(name) else str(number)


def _check_counts(database: Database, part: Part) -> None:
    counts = database.counts()
    if counts != part.counts:
        names = {*counts, *part.counts}
        differing = sorted(name for name in names if counts.get(name) != part.counts.get(name))
        raise StoreError(
            f"a restored database must have as many rows as the backup, but {database.place} "
            f"differs in {', '.join(differing)}. End whatever writes to it, then restore again "
            "with --replace FOLDER."
        )
