"""The eight environment settings and the folders that follow from them."""

import os
from pathlib import Path

from hemaml.core.errors import ConfigError

STORE_WAIT_S = 240.0
"""Long enough for a server to be updated and started again."""


def data_root() -> Path:
    """Folder of real data sets, from `HEMAML_DATA`.

    Raises:
        ConfigError: The variable is unset or names no folder.
    """
    value = os.environ.get("HEMAML_DATA")
    if not value:
        raise ConfigError(
            "HEMAML_DATA must name the folder that holds the data sets, but it is not set. "
            "Set it, or put an absolute `root:` into the experiment's data section."
        )
    root = Path(value).expanduser().resolve()
    if not root.is_dir():
        raise ConfigError(f"HEMAML_DATA must name a folder, but got {value!r}, which is none.")
    return root


def cache_root() -> Path:
    """Folder of the content-addressed cache, from `HEMAML_CACHE`, else below the user's caches."""
    value = os.environ.get("HEMAML_CACHE")
    if value:
        return Path(value).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "hemaml"


def store_root() -> Path:
    """Folder of the embedded stores: `mlruns` of the working folder."""
    return Path.cwd() / "mlruns"


def tracking_uri() -> str:
    """The MLflow store, from `MLFLOW_TRACKING_URI`, else SQLite in `mlruns/mlflow.db`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store_root() / 'mlflow.db'}"


def study_storage() -> str:
    """The Optuna storage, from `HEMAML_STUDY_STORAGE`, else a journal in `mlruns`.

    An RDB URL, or the path of a journal file.
    """
    return os.environ.get("HEMAML_STUDY_STORAGE") or str(store_root() / "optuna.journal")


def record_database() -> str | None:
    """The URL of an MLflow server's database, from `HEMAML_RECORD_DATABASE`: for backups."""
    return os.environ.get("HEMAML_RECORD_DATABASE") or None


def users_database() -> str | None:
    """The URL of its users' database, or `none`, from `HEMAML_USERS_DATABASE`: for backups."""
    return os.environ.get("HEMAML_USERS_DATABASE") or None


def store_wait() -> float:
    """Seconds to wait for a server that has answered before and is away, from `HEMAML_STORE_WAIT`.

    Raises:
        ConfigError: The variable is no number of seconds.
    """
    value = os.environ.get("HEMAML_STORE_WAIT")
    try:
        seconds = float(value) if value else STORE_WAIT_S
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ConfigError(
            f"HEMAML_STORE_WAIT must be a number of seconds, but got {value!r}. "
            f"Leave it unset for {STORE_WAIT_S:g}."
        )
    return seconds


def notification_target() -> str | None:
    """A URL or a command that is told of ends, from `HEMAML_NOTIFY`; see `hemaml.core.notify`."""
    return os.environ.get("HEMAML_NOTIFY") or None
