"""The version of the tables of a study storage, and their upgrade."""

import optuna

from hemaml.engines.optuna_study import storage_errors


def versions(location: str) -> tuple[str, str] | None:
    """The version of a storage's tables and the installed Optuna's; None of a journal."""
    if "://" not in location:
        return None
    with storage_errors(location):
        storage = _unchecked(location)
        found = storage.get_current_version(), storage.get_head_version()
        storage.engine.dispose()
        return found


def upgrade(location: str) -> None:
    """Brings the tables to the version of the installed Optuna."""
    with storage_errors(location):
        storage = _unchecked(location)
        storage.upgrade()
        storage.engine.dispose()


def _unchecked(location: str) -> optuna.storages.RDBStorage:
    return optuna.storages.RDBStorage(location, skip_compatibility_check=True)
