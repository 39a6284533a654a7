"""A table of a paper as data: its figures, and which experiments measure the same.

Tables lie in `experiments/<task>/tables/<name>.yaml`, beside the experiments that their rows name.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from hemaml.core.documents import read_yaml, validated
from hemaml.core.errors import ConfigError, UnknownName
from hemaml.core.experiment import Plan, load_experiment
from hemaml.core.space import Scalar
from hemaml.core.types import Frozen

SIZE = "params_total"
"""The one metric of a table that no test part gives: the model's number of parameters."""
SIZES = (SIZE, "segmenter_params")
"""Metrics that count: shown whole, and compared as how many times as many."""
PARAM = "params."


class PaperData(Frozen):
    """What the paper measured on."""

    name: str = Field(description="The data set's name, as our reader gives it.")
    images: int = Field(ge=1, description="How many it had in all.")
    sides: tuple[int, int] | None = Field(default=None, description="Height and width in pixels.")


class Row(Frozen):
    """One model of a table."""

    label: str = Field(description="As the paper calls it.")
    experiment: str = Field(description="Name of the experiment file in the folder above.")
    set_: tuple[str, ...] = Field(default=(), alias="set", description="As `--set` takes them.")
    settings: dict[str, Scalar] = Field(
        default={},
        description="Parameters of the objective as the paper states them; dotted within another.",
    )
    view: str = Field(
        default="", description="Whose scores: of a view of the model, such as transductive."
    )
    paper: dict[str, float] = Field(default={}, description="Metric to the paper's figure.")


class PaperTable(Frozen):
    """A table file."""

    about: str = Field(description="One sentence, for the list of tables.")
    source: str = Field(description="Paper, table and section.")
    data: PaperData
    train: float | None = Field(
        default=None, gt=0, lt=1, description="Share of the images that the paper trained on."
    )
    timed: int | None = Field(
        default=None,
        ge=1,
        description="So many images are predicted against the clock; nothing is trained or scored.",
    )
    metrics: tuple[str, ...] = Field(min_length=1, description="Columns, in order.")
    set_: tuple[str, ...] = Field(default=(), alias="set", description="For every row.")
    settings: dict[str, Scalar] = Field(default={}, description="Of every row.")
    remarks: tuple[str, ...] = Field(default=(), description="On the paper, below the table.")
    rows: dict[str, Row] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_timed(self) -> Self:
        views = [name for name, row in self.rows.items() if row.view]
        if self.timed and (self.train is not None or views):
            raise ValueError(
                "a table with `timed` trains and scores nothing: leave `train`, and `view` of "
                f"{', '.join(views) or 'its rows'}, out."
            )
        return self


@dataclass(frozen=True)
class TableFile:
    """A table where it lies.

    Attributes:
        path: Its file.
        table: What is in it.
    """

    path: Path
    table: PaperTable

    @property
    def name(self) -> str:
        """As `hemaml reproduce` takes it."""
        return self.path.stem

    def keys(self, chosen: Sequence[str]) -> list[str]:
        """Names of the chosen rows in the table's order; all rows where none is chosen.

        Raises:
            UnknownName: There is no such row.
        """
        for name in chosen:
            if name not in self.table.rows:
                raise UnknownName(f"row of {self.name}", name, self.table.rows)
        return [name for name in self.table.rows if not chosen or name in chosen]


@dataclass(frozen=True)
class RowPlan:
    """How a row is measured, and what it is compared with.

    Attributes:
        key: Name of the row.
        row: As the file has it.
        plan: What is run.
        intended: The same without what the user has overridden.
        stated: Parameters as the paper states them.
    """

    key: str
    row: Row
    plan: Plan
    intended: Plan
    stated: dict[str, Scalar]

    @cached_property
    def changed(self) -> dict[str, tuple[object, object]]:
        """What differs from the paper's setting or, where it states nothing, the experiment's.

        The objective, how images are divided, and parameters in force; each with what is run and
        what it would be, what lies in another by a dotted name. A parameter that only one of them
        has hangs on another difference, which is told.
        """
        ours, intended = (
            {**_protocol(plan), **_in_force(plan)} for plan in (self.plan, self.intended)
        )
        wanted = intended | self.stated
        shared = [name for name in wanted if name in ours]
        return {name: (ours[name], wanted[name]) for name in shared if ours[name] != wanted[name]}


def table_files() -> list[TableFile]:
    """All tables below `experiments/` of the working folder, by name."""
    paths = sorted(Path("experiments").glob("*/tables/*.yaml"), key=lambda path: path.stem)
    return [read_table(path) for path in paths]


def read_table(path: Path) -> TableFile:
    """A table file. Raises `ConfigError` with the path of each fault."""
    found = TableFile(path, validated(PaperTable, read_yaml(path), path.name))
    for key, row in found.table.rows.items():
        if unknown := sorted(row.paper.keys() - set(found.table.metrics)):
            raise ConfigError(
                f"{path.name}: rows.{key}.paper: figures belong to one of `metrics`, "
                f"{', '.join(found.table.metrics)}, but got {', '.join(unknown)}."
            )
    return found


def find_table(name: str) -> TableFile:
    """A table by its name, or by the path of its file.

    Raises:
        UnknownName: There is no such table.
    """
    if name.endswith((".yaml", ".yml")) and Path(name).is_file():
        return read_table(Path(name))
    files = {found.name: found for found in table_files()}
    if name not in files:
        told = " ".join(f"{known}: {found.table.about}" for known, found in files.items())
        hint = f"{told} Tables lie in experiments/<task>/tables/."
        raise UnknownName("table", name, files, hint=hint)
    return files[name]


def row_plans(found: TableFile, keys: Sequence[str], overrides: Sequence[str]) -> list[RowPlan]:
    """How each chosen row is measured; checked before anything runs.

    An override of a parameter goes to the rows whose objective has it, `row:key=value` to one row.

    Args:
        found: The table.
        keys: Names of its rows.
        overrides: `key=value` or `row:key=value`, as `--set` takes them.

    Raises:
        ConfigError: An experiment is wrong or absent, an override fits no row, or the table states
            a parameter that the objective does not have.
    """
    plans, used = [], set[str]()
    for key in keys:
        row = found.table.rows[key]
        path = found.path.parent.parent / f"{row.experiment}.yaml"
        own = [*found.table.set_, *row.set_]
        intended = load_experiment(path, own, search=False)
        known = _parameters(intended)
        if row.view and row.view not in intended.objective.views:
            kind = f"view in {found.path.name}, row {key}"
            raise UnknownName(kind, row.view, intended.objective.views)
        meant = {text: _for_row(text, key, found.table.rows) for text in overrides}
        fitting = {text: mine for text, mine in meant.items() if mine and _fits(mine, known)}
        used.update(fitting)
        plan = load_experiment(path, [*own, *fitting.values()], search=False)
        stated = found.table.settings | row.settings
        there = _in_force(intended)
        for name in stated:
            if name not in there:
                raise UnknownName(f"parameter in {found.path.name}, row {key}", name, there)
        plans.append(RowPlan(key, row, _with_paper(plan, found, row), intended, stated))
    for text in overrides:
        if text not in used:
            raise UnknownName("parameter of any row", text.partition("=")[0], _all_of(plans))
    return plans


def _protocol(plan: Plan) -> dict[str, object]:
    """What is trained, and what its images are divided by."""
    split = plan.experiment.split
    return {
        "objective": plan.experiment.objective,
        "split.folds": split.folds,
        "split.group": split.group,
    }


def _in_force(plan: Plan) -> dict[str, object]:
    """Parameters in force by their dotted names."""
    return _flat(plan.params({}).in_force())


def _flat(values: Mapping[str, object], above: str = "") -> dict[str, object]:
    """Values by their dotted names."""
    found: dict[str, object] = {}
    for name, value in values.items():
        own = f"{above}{name}"
        found |= _flat(value, f"{own}.") if isinstance(value, dict) else {own: value}
    return found


def _for_row(assignment: str, key: str, rows: Collection[str]) -> str:
    """The assignment without the row's name before it; empty where it is another row's."""
    name, _, rest = assignment.partition(":")
    if name not in rows:
        return assignment
    return rest if name == key else ""


def _fits(assignment: str, known: Sequence[str]) -> bool:
    name = assignment.partition("=")[0]
    return not name.startswith(PARAM) or name.removeprefix(PARAM) in known


def _parameters(plan: Plan) -> list[str]:
    return [field.alias or name for name, field in plan.objective.params.model_fields.items()]


def _all_of(plans: Sequence[RowPlan]) -> list[str]:
    return sorted({PARAM + name for plan in plans for name in _parameters(plan.intended)})


def _with_paper(plan: Plan, found: TableFile, row: Row) -> Plan:
    """The plan with the row's figures, which are of this table and perhaps not the file's."""
    figures: dict[str, str | float] = {"source": found.table.source, **row.paper}
    experiment = plan.experiment.model_copy(update={"paper": figures})
    return plan.model_copy(update={"experiment": experiment})
