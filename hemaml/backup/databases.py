"""Databases as a backup sees them: held for a moment, seen as they were at it, and brought back."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from hemaml.core.errors import StoreError
from hemaml.engines.journal import held_journal, open_journal
from hemaml.engines.moving import num_studies

Role = Literal["record", "studies", "users"]
Kind = Literal["sqlite", "journal", "postgresql"]
WAIT_S = 30
CONTENT = {
    "record": ("runs", "logged_models", "registered_models", "trace_info"),
    "studies": ("studies",),
    "users": (),
}
"""Tables of which one row makes a database one that is in use; each server makes a first user."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A database as it was at a moment, as long as the context that gave it is open.

    Attributes:
        dump: Writes it to a file.
        rows: Reads it; None where there are no tables.
    """

    dump: Callable[[Path], None]
    rows: sa.Connection | None


class Database(Protocol):
    """One database of a store. Every method raises `StoreError`, and errors of SQLAlchemy."""

    role: Role
    kind: Kind
    place: str
    """Where it is, for messages: without a password."""

    def held(self) -> AbstractContextManager[None]:
        """Nobody writes to it inside; whoever would waits."""

    def seen(self) -> AbstractContextManager[Seen]:
        """As it is on entry, whatever is written meanwhile."""

    def counts(self) -> dict[str, int]:
        """Rows of each table that has any."""

    def restore(self, file: Path) -> None:
        """Makes it what a dump says; what was in it is gone."""


def in_use(database: Database) -> bool:
    """Whether a database has anything that somebody would miss."""
    counts = database.counts()
    return any(counts.get(table) for table in CONTENT[database.role])


class SqliteFile:
    """An SQLite file, the record of an embedded store."""

    kind: Kind = "sqlite"

    def __init__(self, role: Role, path: Path) -> None:
        self.role = role
        self.path = path
        self.place = str(path)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody writes to it inside."""
        with self._connected() as connection:
            connection.exec_driver_sql("begin immediate")
            yield
            connection.exec_driver_sql("rollback")

    @contextmanager
    def seen(self) -> Iterator[Seen]:
        """As it is on entry: a reader's transaction, which writers do not wait for."""
        if not self.path.exists():
            raise StoreError(
                f"a backup needs a store, but {self.path} does not exist. Go to the folder above "
                "`mlruns`, or set MLFLOW_TRACKING_URI."
            )
        with self._connected() as connection:
            connection.exec_driver_sql("begin")
            connection.exec_driver_sql("select count(*) from sqlite_schema").scalar()
            yield Seen(lambda file: self._dump(connection, file), connection)

    def counts(self) -> dict[str, int]:
        """Rows of each table that has any."""
        if not self.path.exists():
            return {}
        with self._connected() as connection:
            return row_counts(connection)

    def is_whole(self) -> bool:
        """Whether the file is there and undamaged; raises `DatabaseError` where it is none."""
        if not self.path.exists():
            return False
        with self._connected() as connection:
            return bool(connection.exec_driver_sql("pragma quick_check(1)").scalar() == "ok")

    def restore(self, file: Path) -> None:
        """Puts a copy of the dump into its place, at once."""
        self.check_alone()
        copy = self.path.with_name(f".{self.path.name}.restored")
        shutil.copy(file, copy)
        with closing(sqlite3.connect(copy)) as connection:
            connection.execute("pragma journal_mode=wal")
        copy.replace(self.path)

    def check_alone(self) -> None:
        """Refuses a file that another process has open.

        It has a log beside it then, which SQLite would apply to whatever takes the file's place.

        Raises:
            StoreError: Another process has it open.
        """
        if self.path.exists():
            with closing(sqlite3.connect(self.path, timeout=WAIT_S)) as connection:
                connection.execute("pragma wal_checkpoint(truncate)")
        if self.path.with_name(f"{self.path.name}-wal").exists():
            raise StoreError(
                f"a store is replaced while nobody uses it, but a process has {self.path} open. "
                "End sweeps and `hemaml ui`, then try again."
            )

    def _dump(self, connection: sa.Connection, file: Path) -> None:
        source = connection.connection.driver_connection
        assert isinstance(source, sqlite3.Connection)
        with closing(sqlite3.connect(file)) as target:
            source.backup(target)
            target.execute("pragma journal_mode=delete")  # one file, without a log beside it

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        with sqlite_engine(self.path).connect() as connection:
            yield connection


class JournalFile:
    """Optuna's journal, the studies of an embedded store."""

    kind: Kind = "journal"

    def __init__(self, role: Role, path: Path) -> None:
        self.role = role
        self.path = path
        self.place = str(path)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody writes to it inside."""
        open_journal(self.path)  # where there is none yet, who makes one would not wait
        with held_journal(self.path):
            yield

    @contextmanager
    def seen(self) -> Iterator[Seen]:
        """As it is on entry: lines are only ever added. Call it while it is held."""
        size = self.path.stat().st_size
        yield Seen(lambda file: _copy_start(self.path, file, size), None)

    def counts(self) -> dict[str, int]:
        """Studies and trials."""
        return num_studies(str(self.path)) if self.path.exists() else {}

    def restore(self, file: Path) -> None:
        """Puts a copy of the dump into its place, at once."""
        copy = self.path.with_name(f".{self.path.name}.restored")
        shutil.copy(file, copy)
        copy.replace(self.path)


def sqlite_engine(path: Path) -> sa.Engine:
    """For connections whose transactions are begun by hand, as SQLite means them."""
    return sa.create_engine(
        f"sqlite:///{path}",
        isolation_level="AUTOCOMMIT",
        poolclass=NullPool,
        connect_args={"timeout": WAIT_S},
    )


def row_counts(connection: sa.Connection) -> dict[str, int]:
    """Rows of each table that has any."""
    counts = {
        name: connection.scalar(sa.select(sa.func.count()).select_from(sa.table(name)))
        for name in sorted(sa.inspect(connection).get_table_names())
    }
    return {name: count for name, count in counts.items() if count}


def _copy_start(source: Path, target: Path, size: int) -> None:
    with source.open("rb") as reading, target.open("wb") as writing:
        left = size
        while left and (chunk := reading.read(min(left, 1 << 20))):
            writing.write(chunk)
            left -= len(chunk)
    if left:
        raise StoreError(
            f"a journal only grows, but {source} has lost {left} bytes while it was copied. "
            "See who replaced it, then make the backup again."
        )
