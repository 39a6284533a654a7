"""The rows of an embedded record copied into a served one, whose ids may be given away already."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from hemaml.backup.databases import row_counts
from hemaml.core.errors import ConfigError, StoreError
from hemaml.tracking.artifacts import is_local

NOT_MOVED = ("alembic_version", "job_locks", "scheduler_leases")
"""What a server keeps of itself."""
EXPERIMENT = "experiment_id"
ROWS = 5000
MOST_TOLD = 3
LINKS = re.compile(r"(#/experiments/|[?&]experiments=%5B%22)(\d+)\b")
"""Addresses of the MLflow UI that name an experiment."""
TEXTS = (
    ("tags", "value"), ("experiment_tags", "value"), ("registered_models", "description"),
    ("model_versions", "description"), ("model_version_tags", "value"),
)  # fmt: skip
"""Columns in which hemaml writes such addresses."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where experiments go.

    Attributes:
        ids: Id of an experiment to that on the server.
        names: Id to name.
        locations: Id on the server to the location of files.
        there: Ids on the server of those that it has already.
        left: Of these the ids of those that bring nothing.
    """

    ids: Mapping[int, int]
    names: Mapping[int, str]
    locations: Mapping[int, str]
    there: frozenset[int]
    left: frozenset[int]

    def location(self, number: int) -> str:
        """Where the files of an experiment are on the server, by its id there."""
        return self.locations[number]

    @property
    def renumbered(self) -> dict[str, tuple[int, int]]:
        """Names of those whose ids change, with both ids."""
        return {self.names[old]: (old, new) for old, new in self.ids.items() if old != new}


@dataclass(frozen=True, slots=True)
class Taken:
    """What a record has that another cannot bring.

    Attributes:
        experiments: Name to id and location of files.
        full: Ids of experiments that have more than a name and tags.
        models: Names of registered models.
    """

    experiments: Mapping[str, tuple[int, str]]
    full: frozenset[int]
    models: frozenset[str]


def taken(record: sa.Connection) -> Taken:
    """What a record has."""
    query = "select experiment_id, name, artifact_location from experiments"
    models = record.exec_driver_sql("select name from registered_models").scalars()
    tables = _tables_of_experiments(record) - {"experiments", "experiment_tags"}
    full = {
        int(number)
        for table in sorted(tables)
        for number in record.exec_driver_sql(f"select distinct {EXPERIMENT} from {table}").scalars()
        if number is not None
    }
    known = {name: (number, location) for number, name, location in record.exec_driver_sql(query)}
    return Taken(known, frozenset(full), frozenset(models))


def places_of(here: Taken, server: Taken) -> Places:
    """Where each experiment goes: to the one of its name, which must be empty, or to a free id.

    Raises:
        ConfigError: The server has runs or models of the same names, or no place for files.
    """
    names = {number: name for name, (number, _) in here.experiments.items()}
    known = server.experiments
    clashes = [
        f"experiment {name!r}"
        for number, name in names.items()
        if number in here.full and name in known and known[name][0] in server.full
    ]
    clashes += [f"registered model {name!r}" for name in here.models & server.models]
    if clashes:
        raise ConfigError(
            "a store is moved to where nothing of the same name is, but the server has "
            f"{', '.join(sorted(clashes)[:MOST_TOLD])} already. Move it into another server."
        )
    root = known["Default"][1].removesuffix("/0") if "Default" in known else ""
    if not root or is_local(root):
        raise ConfigError(
            f"a server must hand artifacts through, but its own are at {root or 'no known place'}. "
            "Start it with --serve-artifacts, as docker/entrypoints/mlflow.sh does."
        )
    ids = _given_ids(names, {name: number for name, (number, _) in known.items()})
    there = {names[old]: new for old, new in ids.items() if names[old] in known}
    left = frozenset(ids[n] for n in names if n not in here.full and names[n] in there)
    locations = {new: f"{root}/{new}" for new in ids.values()}
    return Places(
        ids=ids,
        names=names,
        locations=locations | {number: known[name][1] for name, number in there.items()},
        there=frozenset(there.values()),
        left=left,
    )


def _given_ids(names: Mapping[int, str], known: Mapping[str, int]) -> dict[int, int]:
    taken, ids = set(known.values()), {}
    for number, name in sorted(names.items()):
        new = known.get(name, number)
        if name not in known and number in taken:
            new = max({*taken, *names}) + 1
        taken.add(new)
        ids[number] = new
    return ids


def _tables_of_experiments(connection: sa.Connection) -> set[str]:
    inspector = sa.inspect(connection)
    return {
        table
        for table in inspector.get_table_names()
        if any(column["name"] == EXPERIMENT for column in inspector.get_columns(table))
    }


def renumber(rows: sa.Connection, places: Places) -> None:
    """Gives experiments their new ids, in all tables and in addresses of the MLflow UI."""
    changed = {old: new for old, new in places.ids.items() if old != new}
    for table in sorted(_tables_of_experiments(rows)) if changed else []:
        # Aside first: an id that is still taken may be another's new one.
        aside = [{"old": old, "new": -1 - new} for old, new in changed.items()]
        back = [{"old": -1 - new, "new": new} for new in changed.values()]
        change = f"update {table} set {EXPERIMENT} = :new where {EXPERIMENT} = :old"
        rows.execute(sa.text(change), [*aside, *back])
    for table, column in TEXTS if changed else []:
        query = f"select distinct {column} from {table} where {column} like '%experiments%'"
        for (text,) in rows.exec_driver_sql(query).all():
            new = LINKS.sub(lambda link: link[1] + _new_id(link[2], places), text)
            change = f"update {table} set {column} = :new where {column} = :old"
            rows.execute(sa.text(change), {"new": new, "old": text})


def _new_id(told: str, places: Places) -> str:
    return str(places.ids.get(int(told), told))


def copy_record(rows: sa.Connection, served: sa.Connection, places: Places) -> dict[str, int]:
    """Copies all rows, in the order in which tables refer to each other; nothing is committed.

    Returns:
        Rows of each table that has any.

    Raises:
        ConfigError: The server has a row that cannot be there twice.
        StoreError: A table of the source is unknown to the server.
    """
    _leave_out(rows, served, places)
    counts = {t: n for t, n in row_counts(rows).items() if t not in NOT_MOVED}
    before = row_counts(served)
    source, target = sa.MetaData(), sa.MetaData()
    source.reflect(rows)
    target.reflect(served)
    if unknown := sorted(set(counts) - set(target.tables)):
        raise StoreError(
            f"both records must have the same tables, but the server has no {unknown[0]!r}, which "
            f"has {counts[unknown[0]]} rows here. Install the same MLflow on both sides."
        )
    for table in target.sorted_tables:
        if table.name in counts:
            _copy_table(rows, served, source.tables[table.name], table)
    after = row_counts(served)
    wrong = [t for t, n in counts.items() if after.get(t, 0) != before.get(t, 0) + n]
    if wrong:
        raise StoreError(
            f"all rows must arrive, but of {wrong[0]} {after.get(wrong[0], 0)} are there. "
            "Nothing was moved; see who else writes to the server, then move again."
        )
    _set_sequences(served, target)
    return counts


def _leave_out(rows: sa.Connection, served: sa.Connection, places: Places) -> None:
    """Takes out what the server has already: experiments by name, with the tags of one side."""
    for number in places.there:
        rows.exec_driver_sql(f"delete from experiments where {EXPERIMENT} = {number}")
        empty = rows if number in places.left else served
        empty.exec_driver_sql(f"delete from experiment_tags where {EXPERIMENT} = {number}")
    for name in served.exec_driver_sql("select name from workspaces").scalars():
        rows.execute(sa.text("delete from workspaces where name = :name"), {"name": name})


def _copy_table(
    rows: sa.Connection, served: sa.Connection, source: sa.Table, target: sa.Table
) -> None:
    names = [column.name for column in source.columns]
    if _numbered_by_server(target):
        names.remove(target.autoincrement_column.name)  # type: ignore[union-attr]
    found = rows.execute(sa.select(*(source.columns[name] for name in names)))
    for part in found.mappings().partitions(ROWS):
        try:
            served.execute(sa.insert(target), [dict(row) for row in part])
        except IntegrityError as error:
            told = str(error.orig).strip().splitlines()[-1]
            raise ConfigError(
                f"a store is moved to where nothing of it is, but the server's {target.name} "
                f"gave: {told}. Move it into another server."
            ) from error


def _numbered_by_server(table: sa.Table) -> bool:
    """Whether a row's number says nothing and nothing refers to it."""
    return table.name != "experiments" and _sequenced(table) is not None


def _sequenced(table: sa.Table) -> "sa.Column[int] | None":
    """The column that PostgreSQL numbers by itself."""
    column = table.autoincrement_column
    return column if column is not None and column.server_default is not None else None


def _set_sequences(served: sa.Connection, tables: sa.MetaData) -> None:
    """The server goes on numbering experiments behind those that came."""
    column = _sequenced(tables.tables["experiments"])
    assert column is not None
    served.exec_driver_sql(
        f"select setval(pg_get_serial_sequence('experiments', '{column.name}'), "
        f"greatest(1, (select max({column.name}) from experiments)))"
    )
