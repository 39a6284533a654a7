"""The studies' own role in PostgreSQL, and optuna-dashboard, which is that role.

Everybody who sweeps has the password of this role. It owns the studies and can open nothing else:
not the record, nor the users, whom MLflow keeps apart by what they may do. The role is made here,
and also on databases of a time before it.

OWNER is the URL by which the database server's owner opens the studies, STUDIES that of the role.
"""

import os

import psycopg
from optuna.storages import RDBStorage
from optuna_dashboard import run_server
from psycopg import sql
from sqlalchemy import make_url

ROLE = sql.Identifier("studies")
KNOWN = "select from pg_roles where rolname = 'studies'"
CLOSED = "revoke all on database mlflow, mlflow_users, studies from public"
TABLES = """select relname from pg_class where relkind in ('r', 'v')
and relnamespace = 'public'::regnamespace and relowner <> 'studies'::regrole"""
TYPES = """select typname from pg_type where typtype = 'e'
and typnamespace = 'public'::regnamespace and typowner <> 'studies'::regrole"""


def make_role(owner: str, password: str) -> None:
    """Makes the role where there is none, with this password, as owner of all of the studies."""
    with psycopg.connect(owner.replace("+psycopg", "")) as connection:
        hashed = connection.pgconn.encrypt_password(password.encode(), b"studies", b"scram-sha-256")
        if connection.execute(KNOWN).fetchone() is None:
            connection.execute(sql.SQL("create role {}").format(ROLE))
        told = sql.SQL("alter role {} login password {}")
        connection.execute(told.format(ROLE, sql.Literal(hashed.decode())))
        connection.execute(sql.SQL("alter database studies owner to {}").format(ROLE))
        connection.execute(CLOSED)
        for kind, query in (("table", TABLES), ("type", TYPES)):
            for (name,) in connection.execute(query).fetchall():
                told = sql.SQL(f"alter {kind} {{}} owner to {{}}")
                connection.execute(told.format(sql.Identifier(name), ROLE))


if __name__ == "__main__":
    studies = os.environ["STUDIES"]
    make_role(os.environ["OWNER"], str(make_url(studies).password))
    RDBStorage(studies)  # makes the tables, which the dashboard expects
    run_server(studies, host=os.environ["BIND"], port=int(os.environ.get("STUDIES_PORT", "8080")))
