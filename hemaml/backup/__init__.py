"""Backups of a whole store, taken while sweeps run, and brought back.

Record and studies are told apart by nothing but time: what a trial does is written to one, then to
the other. So a backup has both as they were at one moment. For that moment, some milliseconds, no
study may be written to, while the snapshots of all databases are opened; then everything goes on,
and the snapshots are copied in peace. Such a backup is what a power cut at that moment would have
left, which `hemaml doctor` repairs and `--resume` goes on from. Files of runs and models follow;
the snapshot of the record names their places, and they are complete before the record says so.
Checkpoints of trials that run stay where they are: a resumed trial begins anew.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from hemaml.backup.databases import Database, Role, Seen, row_counts
from hemaml.backup.manifest import (
    ARTIFACTS,
    FORMAT,
    NAME,
    Manifest,
    Part,
    file_name,
    files_of,
    versions,
)
from hemaml.backup.owners import Owner, folder_of, for_each, owners, write_owners
from hemaml.backup.stores import Stores, stores_in_use
from hemaml.core import settings
from hemaml.core.errors import ConfigError, StoreError
from hemaml.core.staging import staging
from hemaml.engines.moving import num_studies
from hemaml.tracking.artifacts import Artifacts

REVISION_TABLES: dict[Role, str] = {
    "record": "alembic_version", "studies": "alembic_version", "users": "alembic_version_auth",
}  # fmt: skip


def backup(folder: str | Path, *, kept: str | None = None, artifacts: bool = True) -> Manifest:
    """Writes a backup of the stores in use; sweeps may run meanwhile.

    Args:
        folder: Absent or empty; it appears whole or not at all.
        kept: Where an MLflow server keeps artifacts, as `Artifacts` takes it; default: through the
            server.
        artifacts: Whether files of runs and models are taken, or the databases alone.

    Raises:
        ConfigError: The folder is in use, or a database is of a kind that backups do not know.
        StoreError: A store or the disk fails; nothing is left behind.
    """
    target = Path(folder).resolve()
    check_free(target)
    stores = stores_in_use()
    with told_faults(f"the backup in {target}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with staging(target) as staged:
            staged.chmod(0o700)  # it has all that the stores have, users' hashed passwords too
            parts, owned = _databases(stores, staged)
            if artifacts:
                _artifacts(Artifacts(settings.tracking_uri(), kept), owned, staged / ARTIFACTS)
                write_owners(staged, owned)
            manifest = Manifest(
                format=FORMAT,
                made=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                versions=versions(),
                parts=tuple(parts),
                artifacts=artifacts,
                files=files_of(staged),
            )
            (staged / NAME).write_text(manifest.model_dump_json(indent=1))
            os.sync()
            staged.rename(target)
    return manifest


@contextmanager
def snapshots(stores: Stores) -> Iterator[dict[Database, Seen]]:
    """All databases as they were at one moment."""
    with ExitStack() as seen:
        with stores.studies.held():
            yielded = {d: seen.enter_context(d.seen()) for d in stores.databases}
        yield yielded


def _databases(stores: Stores, folder: Path) -> tuple[list[Part], list[Owner]]:
    with snapshots(stores) as seen:
        parts = [_dumped(database, view, folder) for database, view in seen.items()]
        rows = seen[stores.record].rows
        assert rows is not None
        return parts, owners(rows)


def _dumped(database: Database, view: Seen, folder: Path) -> Part:
    role, kind = database.role, database.kind
    file = folder / file_name(role, kind)
    view.dump(file)
    if view.rows is None:
        return Part(role=role, kind=kind, revision=None, counts=num_studies(str(file)))
    found = revision_of(role, view.rows)
    return Part(role=role, kind=kind, revision=found, counts=row_counts(view.rows))


def revision_of(role: Role, rows: sa.Connection) -> str | None:
    """The version of a database's tables; None where it has none."""
    table = REVISION_TABLES[role]
    if not sa.inspect(rows).has_table(table):
        return None
    found = rows.exec_driver_sql(f"select version_num from {table}").scalar()
    return None if found is None else str(found)


def _artifacts(artifacts: Artifacts, owned: list[Owner], folder: Path) -> None:
    for_each(owned, lambda owner: artifacts.fetch(owner.location, folder_of(folder, owner)))


def check_free(folder: Path) -> None:
    """Raises `ConfigError` where a folder has anything in it."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(
            f"a backup goes into a folder that is absent or empty, but {folder} is neither. "
            "Name another one."
        )


@contextmanager
def told_faults(what: str) -> Iterator[None]:
    """Faults of disks and databases as `StoreError`."""
    try:
        yield
    except (OSError, sqlite3.Error, SQLAlchemyError) as error:
        cause = getattr(error, "orig", None) or error
        raise StoreError(
            f"disks and databases must take reads and writes, but {what} met: "
            f"{str(cause).partition(chr(10))[0]}. Mend that, then try again."
        ) from error
