"""The version of the tables of a study storage, and their upgrade."""

import optuna

from hemaml.core.errors import StoreError
from hemaml.engines.optuna_study import storage_errors


def versions(location: str) -> tuple[str, str] | None:
    """The version of a storage's tables and the installed Optuna's; None of a journal.

    Raises:
        StoreError: The tables are newer, or the storage does not work.
    """
    if "://" not in location:
        return None
    with storage_errors(location):
        storage = _unchecked(location)
        found, newest = storage.get_current_version(), storage.get_head_version()
        known = storage.get_all_versions()
        storage.engine.dispose()
    if found not in known:
        raise StoreError(
            f"the tables of the studies must be of the installed Optuna's version {newest}, but "
            f"are of {found}, which is newer. Install the Optuna that made them."
        )
    return found, newest


def upgrade(location: str) -> None:
    """Brings the tables to the version of the installed Optuna."""
    with storage_errors(location):
        storage = _unchecked(location)
        storage.upgrade()
        storage.engine.dispose()


def _unchecked(location: str) -> optuna.storages.RDBStorage:
    return optuna.storages.RDBStorage(location, skip_compatibility_check=True)
