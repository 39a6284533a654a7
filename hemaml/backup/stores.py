"""The databases behind the stores in use, for who may read them whole.

A sweep knows a server by its address alone. Who backs it up must open its databases: that of the
studies is a setting of sweeps already, two more settings name the others. By default they are
beside it, under the names that `docker/entrypoints/databases.sql` gives them.
"""

from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from hemaml.backup.databases import Database, JournalFile, Role, SqliteFile
from hemaml.backup.postgres import SETTINGS, Postgres
from hemaml.core import settings
from hemaml.core.errors import ConfigError

RECORD_NAME, USERS_NAME = "mlflow", "mlflow_users"
NONE = "none"


@dataclass(frozen=True, slots=True)
class Stores:
    """What a backup has: the record, the studies, and a server's users."""

    record: Database
    studies: Database
    users: Database | None

    @property
    def databases(self) -> list[Database]:
        """In the order in which they are restored.

        The record first: where a restoration is cut off, what is there can be backed up again.
        """
        return [self.record, self.studies, *([self.users] if self.users else [])]

    @property
    def folder(self) -> Path | None:
        """The folder of an embedded store, None of a served one."""
        return self.record.path.parent if isinstance(self.record, SqliteFile) else None


def stores_in_use() -> Stores:
    """The databases behind the settings.

    Raises:
        ConfigError: One of them is of a kind that backups do not know, or cannot be told.
    """
    tracking, studies = settings.tracking_uri(), settings.study_storage()
    if not tracking.startswith("http"):
        return Stores(_database("record", tracking), _database("studies", studies), None)
    record = settings.record_database() or _beside(studies, RECORD_NAME, "record")
    users = settings.users_database() or _beside(studies, USERS_NAME, "users")
    return Stores(
        _database("record", record),
        _database("studies", studies),
        None if users == NONE else _database("users", users),
    )


def _beside(studies: str, name: str, role: Role) -> str:
    if not studies.startswith("postgresql"):
        raise ConfigError(
            f"the {role} database of an MLflow server must be known, but neither {SETTINGS[role]} "
            "nor a PostgreSQL URL in HEMAML_STUDY_STORAGE tells it. Set one of them."
        )
    return sa.make_url(studies).set(database=name).render_as_string(hide_password=False)


def _database(role: Role, url: str) -> Database:
    if url.startswith("postgresql"):
        try:
            return Postgres(role, url)
        except ArgumentError:  # its message has the URL, and with it the password
            raise ConfigError(
                f"{SETTINGS[role]} must be a URL, but cannot be read as one. "
                "Write postgresql+psycopg://USER:PASSWORD@HOST:PORT/DATABASE."
            ) from None
    if url.startswith("sqlite:///"):
        return SqliteFile(role, Path(url.removeprefix("sqlite:///")))
    if "://" not in url and role == "studies":
        return JournalFile(role, Path(url))
    kind = url.partition("://")[0]
    raise ConfigError(
        f"backups know SQLite, journals and PostgreSQL, but the {role} are in {kind}. "
        "Back that database up by its own tools."
    )
