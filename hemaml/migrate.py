"""An embedded store moved into the served one: `hemaml migrate`.

The source is read as a backup reads it, as it was at one moment, and stays as it is. Runs, models,
versions, aliases and traces keep their ids, studies their names, experiments their names and, where
the server has not given them away, their ids. Files go first, then the studies, the record last in
one transaction: until it has all rows nobody sees any, and the same call does it again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import sqlalchemy as sa

from hemaml.backup import revision_of, snapshots, told_faults
from hemaml.backup.databases import JournalFile, SqliteFile, sqlite_engine
from hemaml.backup.moving import copy_record, places_of, renumber, taken
from hemaml.backup.owners import Owner, Table, for_each, owners, relocate
from hemaml.backup.postgres import Postgres
from hemaml.backup.stores import Stores, stores_in_use
from hemaml.core import settings
from hemaml.core.errors import ConfigError, Overtaken
from hemaml.core.provenance import is_gone
from hemaml.engines.moving import copy_studies, num_studies, study_names
from hemaml.tracking import schema
from hemaml.tracking.artifacts import Artifacts

RECORD, STUDIES = "mlflow.db", "optuna.journal"
MOST_TOLD = 3


@dataclass(frozen=True, slots=True)
class Moved:
    """What was moved.

    Attributes:
        counts: Rows of each table that had any; studies and trials as well.
        renumbered: Experiments whose ids were given away on the server: name to old and new id.
    """

    counts: Mapping[str, int]
    renumbered: Mapping[str, tuple[int, int]]


def migrate(folder: str | Path | None = None, *, kept: str | None = None) -> Moved:
    """Moves an embedded store into the served stores in use; the source is left as it is.

    Args:
        folder: With `mlflow.db` and `optuna.journal`; default: `mlruns` of the working folder.
        kept: Where the MLflow server keeps artifacts, as `Artifacts` takes it; default: through it.

    Raises:
        ConfigError: The settings name no served stores, these have what the source has, or a
            process works on the source.
        StoreError: A store, its tables or the disk cannot be used. Files and studies may have been
            copied; no run was.
    """
    source = Path(folder).resolve() if folder is not None else settings.store_root()
    target = _served()
    with told_faults(f"moving {source}"), TemporaryDirectory() as work:
        record, studies = _photographed(source, Path(work))
        with sqlite_engine(record).connect() as rows:
            rows.exec_driver_sql("begin immediate")
            with target.connected() as served:
                _check(rows, served, record=str(source / RECORD), target=target)
                there = taken(served)
            _check_complete(rows, studies, source)
            places = places_of(taken(rows), there)
            before = {(owner.table, owner.id): owner.location for owner in owners(rows)}
            renumber(rows, places)
            _upload(before, relocate(rows, places.location), kept)
            copy_studies(str(studies), settings.study_storage())
            with target.connected("REPEATABLE READ") as served:
                if taken(served) != there:
                    raise Overtaken(
                        f"a store is moved while nobody makes experiments or models in "
                        f"{target.place}, but somebody did. Nothing was recorded; move again."
                    )
                counts = copy_record(rows, served, places)
                served.commit()
        return Moved({**counts, **num_studies(str(studies))}, places.renumbered)


def _served() -> Postgres:
    uri = settings.tracking_uri()
    target = stores_in_use().record if uri.startswith("http") else None
    if not isinstance(target, Postgres) or not settings.study_storage().startswith("postgresql"):
        raise ConfigError(
            "a store is moved into a served one, but the settings name "
            f"{'a server without PostgreSQL' if uri.startswith('http') else 'an embedded one'}. "
            "Set MLFLOW_TRACKING_URI and HEMAML_STUDY_STORAGE to the server and its database."
        )
    return target


def _photographed(source: Path, work: Path) -> tuple[Path, Path]:
    """Copies of record and studies as they were at one moment."""
    record, studies = work / "record.sqlite", work / "studies.journal"
    if not (source / RECORD).is_file():
        raise ConfigError(
            f"an embedded store has a {RECORD}, but {source} has none. Name the folder that has it."
        )
    if (source / STUDIES).is_file():
        stores = Stores(
            SqliteFile("record", source / RECORD), JournalFile("studies", source / STUDIES), None
        )
        with snapshots(stores) as seen:
            seen[stores.record].dump(record)
            seen[stores.studies].dump(studies)
    else:
        studies.touch()
        with SqliteFile("record", source / RECORD).seen() as view:
            view.dump(record)
    return record, studies


def _check(rows: sa.Connection, served: sa.Connection, *, record: str, target: Postgres) -> None:
    for connection, place in ((rows, record), (served, target.place)):
        if (found := revision_of("record", connection)) is None:
            raise ConfigError(
                f"both records must have their tables, but {place} has none. Start the MLflow "
                "server, which makes its own, then move again."
            )
        schema.check(found, place)
    query = (
        "select r.name, t.value from runs r join tags t on t.run_uuid = r.run_uuid "
        "where r.status = 'RUNNING' and t.key = 'process'"
    )
    alive = [name for name, process in rows.exec_driver_sql(query) if not is_gone(process)]
    if alive:
        raise ConfigError(
            f"a store is moved while nothing is added to it, but these runs go on: "
            f"{', '.join(alive[:MOST_TOLD])}. Wait for their end; those of another machine "
            "are ended by `hemaml doctor --sweep ID --repair`."
        )


def _check_complete(rows: sa.Connection, studies: Path, source: Path) -> None:
    """Raises `ConfigError` where a sweep's study is kept somewhere else."""
    named = rows.exec_driver_sql("select distinct value from tags where key = 'study'").scalars()
    absent = sorted(set(named) - study_names(str(studies)))
    if absent:
        raise ConfigError(
            f"a store is moved with its studies, but {source / STUDIES} lacks {len(absent)} that "
            f"sweeps name, such as {absent[0]!r}. Put the journal that has them there."
        )


def _upload(before: Mapping[tuple[Table, str], str], owned: list[Owner], kept: str | None) -> None:
    artifacts = Artifacts(settings.tracking_uri(), kept)
    here = Artifacts("")

    def put(owner: Owner) -> None:
        folder = here.local(before[owner.table, owner.id])
        if folder is not None and folder.is_dir():
            artifacts.put(folder, owner.location)

    for_each(owned, put)
