"""Tables of the record and of the studies brought to the installed versions: `hemaml upgrade`.

MLflow and Optuna bring their own migrations, which are not promised to be undone where they fail.
So nothing is changed before a backup of the databases is there.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from hemaml.backup import backup, told_faults
from hemaml.backup.databases import Database, JournalFile, SqliteFile
from hemaml.backup.postgres import Postgres
from hemaml.backup.stores import Stores, stores_in_use
from hemaml.core import settings
from hemaml.core.errors import StoreError
from hemaml.engines import study_tables
from hemaml.tracking import schema

OTHERS = """select count(*) from pg_stat_activity where datname = current_database()
and pid <> pg_backend_pid() and backend_type = 'client backend'"""
KEPT = ("experiments", "runs", "metrics", "params", "tags", "registered_models", "model_versions",
        "studies", "trials", "trial_params", "trial_values")  # fmt: skip
"""Tables of which an upgrade must not change the number of rows."""


@dataclass(frozen=True, slots=True)
class Upgraded:
    """What was upgraded.

    Attributes:
        backup: The backup that was made before, None where nothing was to be done.
        changes: By database, the versions of its tables before and now.
    """

    backup: Path | None
    changes: Mapping[str, tuple[str, str]]


def upgrade(folder: str | Path | None = None) -> Upgraded:
    """Backs up the databases in use, brings their tables up to date and looks at the result.

    Nobody may use the stores meanwhile; the MLflow server brings its users up to date by itself.

    Args:
        folder: Of the backup; default: a new one in `mlruns/backups`.

    Raises:
        StoreError: A database is newer than what is installed, or in use, or an upgrade failed:
            the message names the backup.
    """
    stores = stores_in_use()
    before = {**_record_versions(stores), **_studies_versions()}
    outdated = {role: pair for role, pair in before.items() if pair[0] != pair[1]}
    if not outdated:
        return Upgraded(None, {})
    for database in stores.databases:
        _check_alone(database)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    target = Path(folder or settings.store_root() / "backups" / f"before-upgrade-{stamp}").resolve()
    manifest = backup(target, artifacts=False)
    try:
        if "record" in outdated:
            schema.upgrade(_engine(stores.record))
        if "studies" in outdated:
            study_tables.upgrade(settings.study_storage())
        after = {**_record_versions(stores), **_studies_versions()}
        _check_kept({p.role: p.counts for p in manifest.parts}, stores)
        if wrong := [role for role, (now, newest) in after.items() if now != newest]:
            raise StoreError(f"the tables of the {wrong[0]} are still of {after[wrong[0]][0]}")
    except Exception as error:  # migrations are code of others, which may raise anything
        told = str(error).partition("\n")[0]
        raise StoreError(
            f"an upgrade must keep all that there is, but it failed: {told}. The databases as they "
            f"were are in {target}; `hemaml restore {target} --replace FOLDER` brings them back."
        ) from error
    return Upgraded(target, outdated)


def _record_versions(stores: Stores) -> dict[str, tuple[str, str]]:
    with told_faults(f"a look at {stores.record.place}"):
        found = schema.revision(_engine(stores.record))
    newest = schema.known_revisions()[0]
    if found is None:
        return {}
    if found not in schema.known_revisions():
        schema.check(found, stores.record.place)
    return {"record": (found, newest)}


def _studies_versions() -> dict[str, tuple[str, str]]:
    versions = study_tables.versions(settings.study_storage())
    return {} if versions is None else {"studies": versions}


def _engine(database: Database) -> sa.Engine:
    if isinstance(database, Postgres):
        return sa.create_engine(database.url, poolclass=NullPool)
    assert isinstance(database, SqliteFile)
    if not database.path.exists():
        raise StoreError(f"an upgrade needs a store, but {database.path} does not exist.")
    return sa.create_engine(f"sqlite:///{database.path}", poolclass=NullPool)


def _check_alone(database: Database) -> None:
    if isinstance(database, SqliteFile):
        database.check_alone()
    if isinstance(database, Postgres):
        with database.connected() as connection:
            others = connection.exec_driver_sql(OTHERS).scalar_one()
        if others:
            raise StoreError(
                f"tables are upgraded while nobody uses them, but {others} others are connected to "
                f"{database.place}. End sweeps, the MLflow server and optuna-dashboard first."
            )


def _check_kept(before: Mapping[str, Mapping[str, int]], stores: Stores) -> None:
    for database in stores.databases:
        if isinstance(database, JournalFile):
            continue
        after = database.counts()
        for table in KEPT:
            was, now = before[database.role].get(table, 0), after.get(table, 0)
            if was != now:
                raise StoreError(f"{table} of {database.place} had {was} rows and has {now}")
