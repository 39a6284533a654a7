"""Whose files a record names, and where: of runs, logged models and traces."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import sqlalchemy as sa

from hemaml.tracking.artifacts import is_local

FILE = "owners.json"
NUM_THREADS = 8
"""Copying many small files from or to a server is waiting, mostly."""
LOCATION = "mlflow.artifactLocation"
"""Tag of a trace."""
OWNERS = {
    "runs": "select run_uuid, artifact_uri, experiment_id from runs",
    "logged_models": "select model_id, artifact_location, experiment_id from logged_models",
    "trace_tags": "select t.request_id, t.value, i.experiment_id from trace_tags t "
    f"join trace_info i on i.request_id = t.request_id where t.key = '{LOCATION}'",
}
SET = {
    "runs": "update runs set artifact_uri = :new where run_uuid = :id",
    "logged_models": "update logged_models set artifact_location = :new where model_id = :id",
    "trace_tags": f"update trace_tags set value = :new where request_id = :id "
    f"and key = '{LOCATION}'",
}
"""By table; old versions of the tables lack some."""
SET_ROOT = "update experiments set artifact_location = :new where experiment_id = :id"
Table = Literal["runs", "logged_models", "trace_tags"]
BELOW = {"runs": "", "logged_models": "models/", "trace_tags": "traces/"}
"""Where MLflow puts the files of an owner, below the location of the experiment."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A run, a logged model or a trace, whose files are at a location."""

    table: Table
    id: str
    location: str
    experiment: int

    @property
    def folder(self) -> str:
        """Name of the folder in a backup."""
        return f"{self.table}/{self.id}"


def owners(record: sa.Connection) -> list[Owner]:
    """All owners of files in a record, deleted ones included."""
    tables = set(sa.inspect(record).get_table_names())
    return [
        Owner(table, str(name), location, int(experiment))  # type: ignore[arg-type]
        for table, query in OWNERS.items()
        if table in tables
        for name, location, experiment in record.exec_driver_sql(query)
        if location
    ]


def relocate(record: sa.Connection, roots: Callable[[int], str]) -> list[Owner]:
    """Writes new locations into a record, of all experiments and owners that are on a local disk.

    Args:
        record: In an SQLite file.
        roots: The new location of an experiment, by its id.

    Returns:
        The owners at their new locations; those in other places stay as they are.
    """
    experiments = record.exec_driver_sql("select experiment_id, artifact_location from experiments")
    for number, location in experiments.all():
        if is_local(location or ""):
            given = {"new": roots(number), "id": number}
            record.execute(sa.text(SET_ROOT), given)
    moved, found = {}, []
    for owner in owners(record):
        if is_local(owner.location):
            new = f"{roots(owner.experiment)}/{BELOW[owner.table]}{owner.id}/artifacts"
            record.execute(sa.text(SET[owner.table]), {"new": new, "id": owner.id})
            moved[owner.location] = new
            owner = Owner(owner.table, owner.id, new, owner.experiment)
        found.append(owner)
    _relocate_versions(record, moved)
    return found


def _relocate_versions(record: sa.Connection, moved: Mapping[str, str]) -> None:
    """A registered version names the files of the model or the run that it was made of."""
    for column in ("source", "storage_location"):
        query = f"select distinct {column} from model_versions where {column} is not null"
        for (old,) in record.exec_driver_sql(query).all():
            for start in _starts(old):
                if start in moved:
                    new = moved[start] + old[len(start) :]
                    change = f"update model_versions set {column} = :new where {column} = :old"
                    record.execute(sa.text(change), {"new": new, "old": old})
                    break


def _starts(location: str) -> Iterator[str]:
    """A location and the folders that it is in, the longest first."""
    while location:
        yield location
        location = location.rpartition("/")[0]


def for_each(owned: Sequence[Owner], copy: Callable[[Owner], None]) -> None:
    """Copies the files of owners, several at a time; the first fault ends it."""
    pool = ThreadPoolExecutor(NUM_THREADS)
    try:
        for _ in pool.map(copy, owned):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


def folder_of(backup: Path, owner: Owner) -> Path:
    """Where a backup has the files of an owner; absent where it has none."""
    return backup / owner.folder


def write_owners(backup: Path, owned: Sequence[Owner]) -> None:
    """Writes into a backup whose files it has, and where these were."""
    (backup / FILE).write_text(json.dumps([asdict(owner) for owner in owned], indent=0))


def read_owners(backup: Path) -> list[Owner]:
    """What `write_owners` wrote."""
    return [Owner(**told) for told in json.loads((backup / FILE).read_text())]
