"""Ends with a sentence where tables of the record are older than the installed MLflow.

`mlflow server` would upgrade some of them by itself, without a backup. The URL of the database is
read from MLFLOW_BACKEND_STORE_URI.
"""

import os
import sys

import sqlalchemy
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from mlflow.store.db.utils import _get_alembic_config

engine = sqlalchemy.create_engine(os.environ["MLFLOW_BACKEND_STORE_URI"])
script = ScriptDirectory.from_config(_get_alembic_config(db_url=""))
with engine.connect() as connection:
    found = MigrationContext.configure(connection).get_current_revision()
newest = script.get_current_head()
if found not in (None, newest):
    sys.exit(
        f"error: the tables of the record must be of the installed MLflow's version {newest}, but "
        f"are of {found}. `hemaml upgrade` makes a backup, then upgrades them."
    )
