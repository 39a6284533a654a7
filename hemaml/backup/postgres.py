"""A PostgreSQL database as a backup sees it; dumps are those of pg_dump."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from hemaml.backup.databases import WAIT_S, Kind, Role, Seen, row_counts
from hemaml.core.errors import ConfigError, StoreError

PAUSE_S = 0.02
PROGRAMS = Path("/usr/lib/postgresql")
"""Where Debian keeps each version's."""
ROUTINES = """select p.oid::regprocedure::text from pg_proc p
where p.pronamespace = current_schema()::regnamespace
and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')"""
"""Functions, such as those of MLflow's triggers; those of extensions go with these."""
LOCKED = "55P03"
"""PostgreSQL's code of a lock that another holds."""


class Postgres:
    """A database of a PostgreSQL server, by its URL."""

    kind: Kind = "postgresql"

    def __init__(self, role: Role, url: str) -> None:
        self.role = role
        # MLflow's and Optuna's URLs may name other drivers, of which ours is the one that is there.
        self.url = sa.make_url(url).set(drivername="postgresql+psycopg")
        self.place = f"{self.url.host}:{self.url.port or 5432}/{self.url.database}"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody writes to it inside.

        Locks are taken all at once or not at all: whoever waited for some while holding others
        could wait for ever for who does likewise.
        """
        deadline = time.monotonic() + WAIT_S
        with self.connected() as connection:
            while not self._lock(connection):
                if time.monotonic() > deadline:
                    raise StoreError(
                        f"a backup needs a moment without writes, but {self.place} had none in "
                        f"{WAIT_S} s. See what holds its locks (pg_locks), then try again."
                    )
                time.sleep(PAUSE_S)
            yield

    def _lock(self, connection: sa.Connection) -> bool:
        tables = _quoted(connection)
        if not tables:
            return True
        try:
            connection.exec_driver_sql(f"lock table {tables} in share mode nowait")
        except OperationalError as error:
            connection.rollback()
            if getattr(error.orig, "sqlstate", None) != LOCKED:
                raise
            return False
        return True

    @contextmanager
    def seen(self) -> Iterator[Seen]:
        """As it is on entry: a transaction whose snapshot pg_dump is given."""
        with self.connected("REPEATABLE READ") as connection:
            connection.exec_driver_sql("set local idle_in_transaction_session_timeout = 0")
            snapshot = connection.exec_driver_sql("select pg_export_snapshot()").scalar_one()

            def dump(file: Path) -> None:
                options = ["--format=custom", f"--snapshot={snapshot}", f"--file={file}"]
                self._run("pg_dump", *options)

            yield Seen(dump, connection)

    def counts(self) -> dict[str, int]:
        """Rows of each table that has any."""
        with self.connected() as connection:
            return row_counts(connection)

    def restore(self, file: Path) -> None:
        """Drops all tables, functions and types, then restores the dump in one transaction."""
        with self.connected() as connection:
            connection.exec_driver_sql(f"set local lock_timeout = '{WAIT_S}s'")
            if tables := _quoted(connection):
                connection.exec_driver_sql(f"drop table {tables} cascade")
            for routine in connection.exec_driver_sql(ROUTINES).scalars().all():
                connection.exec_driver_sql(f"drop routine {routine} cascade")
            quote = connection.dialect.identifier_preparer.quote
            for kind in sa.inspect(connection).get_enums():  # type: ignore[attr-defined]
                connection.exec_driver_sql(f"drop type {quote(kind['name'])} cascade")
            connection.commit()
        self._run("pg_restore", "--single-transaction", "--exit-on-error", str(file))

    @contextmanager
    def connected(self, isolation: str = "READ COMMITTED") -> Iterator[sa.Connection]:
        """A connection in a transaction, which is rolled back unless it is committed.

        Raises:
            StoreError: The server cannot be reached, or has no such database.
        """
        engine = sa.create_engine(
            self.url, poolclass=NullPool, isolation_level=isolation,
            connect_args={"connect_timeout": WAIT_S},
        )  # fmt: skip
        try:
            connection = engine.connect()
        except (OperationalError, ImportError) as error:
            told = getattr(error, "orig", None) or error
            raise StoreError(
                f"the {self.role} database must be reachable, but {self.place} gave: "
                f"{' '.join(str(told).split())}. Check {SETTINGS[self.role]} and the server."
            ) from error
        with connection:
            yield connection

    def _run(self, program: str, *options: str) -> None:
        """A program of PostgreSQL; the password is in its environment, not on its command line."""
        known = self.url.translate_connect_args(username="user", database="dbname")
        known |= dict(self.url.query)
        password = known.pop("password", None)
        address = " ".join(f"{name}={_escaped(str(value))}" for name, value in known.items())
        done = subprocess.run(
            [_program(program), "--no-owner", "--no-acl", "--no-password", f"--dbname={address}",
             *options],
            env=os.environ | ({"PGPASSWORD": password} if password else {}),
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            told = next((line for line in lines if "error:" in line), lines[-1])
            raise StoreError(
                f"{program} must succeed, but on {self.place} it gave: {told}. "
                "Check the disk, and that it is no older than the server."
            )


SETTINGS: dict[Role, str] = {
    "record": "HEMAML_RECORD_DATABASE",
    "studies": "HEMAML_STUDY_STORAGE",
    "users": "HEMAML_USERS_DATABASE (`none` where MLflow's users are not in PostgreSQL)",
}


def _quoted(connection: sa.Connection) -> str:
    quote = connection.dialect.identifier_preparer.quote
    return ", ".join(quote(name) for name in sorted(sa.inspect(connection).get_table_names()))


def _escaped(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _program(name: str) -> str:
    """The path of a program of PostgreSQL, which Debian keeps out of the search path.

    Raises:
        ConfigError: It is not installed.
    """
    newest = sorted(PROGRAMS.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    found = shutil.which(name) or (str(newest[-1]) if newest else None)
    if found is None:
        raise ConfigError(
            f"a backup of PostgreSQL needs {name}, but it is not installed here. "
            "Ask for: apt-get install postgresql-client, no older than the server."
        )
    return found
