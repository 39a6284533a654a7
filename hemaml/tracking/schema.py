"""The version of the tables of an MLflow database, and their upgrade."""

import logging
from functools import cache
from pathlib import Path
from typing import cast

from alembic.script import ScriptDirectory
from mlflow.store.db import utils
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import NullPool

from hemaml.core.errors import StoreError


@cache
def known_revisions() -> tuple[str, ...]:
    """All versions of the tables that the installed MLflow knows, the newest first."""
    config = utils._get_alembic_config(db_url="")  # type: ignore[no-untyped-call]
    script = ScriptDirectory.from_config(config)
    return tuple(revision.revision for revision in script.walk_revisions())


def revision(engine: Engine) -> str | None:
    """The version of a database's tables; None where it has none."""
    found = utils._get_schema_version(engine)  # type: ignore[no-untyped-call]
    return cast("str | None", found)


def upgrade(engine: Engine) -> None:
    """Brings the tables to the version of the installed MLflow."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    utils._upgrade_db(engine)  # type: ignore[no-untyped-call]


def check_embedded(uri: str) -> None:
    """Refuses an embedded store, where there is one, whose tables are of another version.

    Raises:
        StoreError: They are older or newer.
    """
    path = Path(uri.removeprefix("sqlite:///"))
    if path.exists():
        check(revision(create_engine(uri, poolclass=NullPool)), str(path))


def check(found: str | None, place: str) -> None:
    """Refuses tables that are not of the installed MLflow's version.

    MLflow itself upgrades some of them on first sight, without a backup.

    Raises:
        StoreError: They are older or newer.
    """
    newest = known_revisions()[0]
    if found in (None, newest):
        return
    if found in known_revisions():
        raise StoreError(
            f"the tables of the record must be of the installed MLflow's version {newest}, but "
            f"{place} has {found}. With this store in the settings, `hemaml upgrade` makes a "
            "backup, then upgrades them."
        )
    raise StoreError(
        f"the tables of the record must be of the installed MLflow's version {newest}, but "
        f"{place} has {found}, which is newer. Install the MLflow that made them."
    )
