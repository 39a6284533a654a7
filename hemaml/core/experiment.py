"""One question as data: an experiment file and its search space, read into frozen models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from hemaml.core.documents import dump_yaml, override, read_yaml, validated
from hemaml.core.errors import ConfigError, UnknownName
from hemaml.core.gates import BY_CLASS, BY_GROUP, Gate
from hemaml.core.objective import Objective, load_objective
from hemaml.core.space import FloatRange, Space, load_space
from hemaml.core.study import StudyFigure, check_figures
from hemaml.core.sweep import Goal, Split, Sweep
from hemaml.core.types import Frozen, Point

OBJECTIVE, SEED = "objective", "seed"
"""What a space may search that is no parameter: which of a task's objectives is trained, and a
number that only draws other seeds, so that one point is trained several times."""
SUMMARY = (
    "best_step", "epoch_s", "model_bytes", "ms_per_image", "params_total", "params_trainable",
    "peak_memory_mb", "train_s",
)  # fmt: skip
"""Metrics of a finished trial besides its scores."""
MEASURED = "explain/"
"""What names of numbers begin with that are measured of a kept model."""


class Experiment(Frozen):
    """An experiment file: one question to one objective on one data set."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_]*$", description="The file's name.")
    objective: str
    question: str = Field(description="What the sweep shall answer; shown in the MLflow UI.")
    data: dict[str, Any]
    split: Split = Split()
    params: dict[str, Any] = Field(default={}, description="Fixed parameters of the objective.")
    space: str | None = Field(default=None, description="Search space; default: the same name.")
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: a GPU where there is one; not part of a trial's key."
    )
    sweep: Sweep = Sweep()
    paper: dict[str, str | float] = Field(
        default={}, description="`source` and the figures a paper reports, shown beside ours."
    )
    figures: tuple[StudyFigure, ...] = Field(
        default=(), description="Drawn of the finished trials, besides what every sweep has."
    )
    gates: dict[str, Gate] = Field(
        default={},
        description="Score, recorded number, by_class or by_group to what promotion asks of it.",
    )
    register_as: str | None = Field(
        default=None,
        alias="register",
        pattern=r"^[^/:@]+$",
        description="Registers each sweep's winner under this name; default: `hemaml promote` "
        "registers under the task's name, or <task>-<data> for other data than its usual one.",
    )
    licence: str = Field(default="not stated", description="Of the models; on their cards.")
    intended_use: str = Field(
        default="Research on images of blood cells and tissue. Not a medical device; not for "
        "diagnosis.",
        description="On the cards of the models.",
    )

    @field_validator("gates")
    @classmethod
    def _check_gates(cls, gates: dict[str, Gate]) -> dict[str, Gate]:
        for name in (BY_CLASS, BY_GROUP):
            if name in gates and (gates[name].better or gates[name].at_most is not None):
                raise ValueError(f"`{name}` takes `at_least` and `not_worse_by` alone.")
        return gates

    @property
    def task(self) -> str:
        """Name of the objective's task."""
        return self.objective.partition(".")[0]

    def document(self) -> dict[str, Any]:
        """The experiment as plain values, defaults included; reads back equal."""
        return self.model_dump(mode="json", by_alias=True)


class Plan(Frozen):
    """An experiment with its search space (None for one that only runs a point)."""

    experiment: Experiment
    space: Space | None = None

    @property
    def objective(self) -> Objective:
        """The objective, imported on first use."""
        return load_objective(self.experiment.objective)

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of all objectives that are trained: the searched ones, else the experiment's."""
        searched = self.space.root.get(OBJECTIVE) if self.space else None
        return tuple(map(str, searched.extremes)) if searched else (self.experiment.objective,)

    def at(self, point: Point) -> "Plan":
        """The plan with the objective that a point names; the same where it names none."""
        name = point.get(OBJECTIVE, self.experiment.objective)
        if name == self.experiment.objective:
            return self
        experiment = self.experiment.model_copy(update={"objective": name})
        return self.model_copy(update={"experiment": experiment})

    @property
    def goals(self) -> tuple[Goal, ...]:
        """What is optimised: the sweep's goals, else the task's primary metric."""
        task = self.objective.task
        primary = Goal(metric=task.primary, direction=task.direction)
        return self.experiment.sweep.goals or (primary,)

    def params(self, point: Point) -> Frozen:
        """The objective's parameters at a point: fixed ones and the point's.

        Raises:
            ConfigError: A name or value that the objective does not allow.
        """
        chosen = {name: v for name, v in point.items() if name not in (OBJECTIVE, SEED)}
        values = {**self.experiment.params, **chosen}
        return validated(self.at(point).objective.params, values, "params")

    def size(self, point: Point) -> int:
        """Parameters of the model at a point, without making it."""
        return self.at(point).objective.size(self.params(point))

    def yaml(self) -> tuple[str, str]:
        """The two files as they are in force: experiment and space."""
        space = self.space.model_dump(mode="json", exclude_defaults=True) if self.space else {}
        return dump_yaml(self.experiment.document()), dump_yaml(space)


def load_experiment(
    path: str | Path, overrides: Sequence[str] = (), *, search: bool = True
) -> Plan:
    """Reads `experiments/<task>/<name>.yaml` and the space it names, and checks both.

    The space is `search_spaces/<task>/<space>.yaml` beside the `experiments` folder; `space:`
    defaults to the experiment's own name, and may be missing for one that is only run. Without
    `search` it is left aside, so that overrides may fix what it would search.

    Raises:
        ConfigError: An unknown key, a wrong value, a range outside the objective's bounds; each
            with the path of the fault.
    """
    path = Path(path)
    if not path.is_file():
        known = [str(p) for p in sorted(Path("experiments").glob("*/*.yaml"))]
        raise UnknownName("experiment", str(path), known)
    document: dict[str, Any] = {"name": path.stem} | read_yaml(path)
    for assignment in overrides:
        document = override(document, assignment)
    experiment = validated(Experiment, document, path.name)
    if len(path.resolve().parents) < 3:
        raise ConfigError(
            f"an experiment lies in experiments/<task>/, but got {str(path)!r}: its search space "
            "is looked for beside the experiments folder."
        )
    space_path = (
        path.resolve().parents[2]
        / "search_spaces"
        / experiment.task
        / f"{experiment.space or experiment.name}.yaml"
    )
    has_space = search and (experiment.space is not None or space_path.is_file())
    plan = Plan(experiment=experiment, space=load_space(space_path) if has_space else None)
    check_plan(plan)
    return plan


def plan_of(
    experiment: str | Path | Plan, overrides: Sequence[str] = (), *, search: bool = True
) -> Plan:
    """A plan as it is, or that of a file with these overrides; see `load_experiment`.

    Raises:
        ConfigError: As there, or overrides are given beside a plan, which would not have them.
    """
    if not isinstance(experiment, Plan):
        return load_experiment(experiment, overrides, search=search)
    if overrides:
        raise ConfigError(
            f"overrides change a file, but {experiment.experiment.name!r} was given as a plan, "
            f"with {list(overrides)}. Give them to `load_experiment`, which makes the plan."
        )
    return experiment


def plan_from(document: Mapping[str, Any], space: Mapping[str, Any] | None) -> Plan:
    """A plan from plain values: the two files as a sweep stored them, or a notebook's dicts."""
    plan = Plan(
        experiment=validated(Experiment, document, "experiment"),
        space=validated(Space, space, "space") if space else None,
    )
    check_plan(plan)
    return plan


def check_plan(plan: Plan) -> None:
    """Puts every end of every range through the objective's parameters, and the budget's floor.

    Raises:
        ConfigError: What would have failed in a trial, before any trial starts.
    """
    _check_names(plan)
    if plan.space is None:
        plan.params({})
        return
    for point in plan.experiment.sweep.first:
        plan.params(plan.space.coerce(point))
    check_figures(plan.experiment.figures, plan.space, unnamed=(SEED,))
    _check_measured(plan.experiment)
    _check_goals(plan.experiment)
    if plan.experiment.register_as and not plan.experiment.sweep.confirm_seeds:
        raise ConfigError(
            "`sweep.confirm_seeds >= 1` must hold where `register:` names a model, since what is "
            "registered is a confirmation's, but got 0. Raise it, or leave `register:` out."
        )
    sizes = [plan.size(corner) for corner in plan.space.corners()]
    limit = plan.experiment.sweep.max_params
    if limit is not None and min(sizes) > limit:
        raise ConfigError(
            f"`max_params: {limit}` must allow some point of the space, but the smallest of its "
            f"corners has {min(sizes)} parameters. Raise it, or widen the space downwards."
        )
    if plan.experiment.sweep.sampler == "grid":
        plan.space.grid()
    if plan.experiment.sweep.is_population:
        _check_mutable(plan, plan.space)


def _check_mutable(plan: Plan, space: Space) -> None:
    """A population searches what a training can change on its way, and nothing else."""
    mutable = frozenset.intersection(*(load_objective(n).mutable for n in plan.objectives))
    for name, dimension in space.root.items():
        if name not in mutable:
            raise ConfigError(
                f"`pruner: {plan.experiment.sweep.pruner}` searches what may change within a "
                f"training, {', '.join(sorted(mutable)) or 'nothing'} here, but the space has "
                f"{name!r}. Fix it in `params:`, or use another pruner."
            )
        if not isinstance(dimension, FloatRange) or dimension.step or dimension.when:
            raise ConfigError(
                f"`pruner: {plan.experiment.sweep.pruner}` searches floats without `step` and "
                f"`when`, but {name!r} is another kind. Make it such a range."
            )


def _check_names(plan: Plan) -> None:
    """Each name is a parameter of the objectives that it is for, and fixed or searched."""
    known = {name: _parameters(name) for name in plan.objectives}
    if others := [name for name in known if name.partition(".")[0] != plan.experiment.task]:
        raise ConfigError(
            f"objectives that are searched must be of one task, {plan.experiment.task!r} here, but "
            f"got {others[0]!r}. Ask each task in an experiment of its own."
        )
    for name in plan.experiment.params:
        for objective, names in known.items():
            if name not in names:
                raise UnknownName(f"parameter of {objective}", name, names)
    anywhere = {OBJECTIVE, SEED, *(name for names in known.values() for name in names)}
    for name in plan.space or ():
        if name not in anywhere:
            raise UnknownName(f"parameter of {' or '.join(known)}", name, anywhere)
        if name in plan.experiment.params:
            raise ConfigError(
                f"a parameter is fixed or searched, but {name!r} is both. "
                "Remove it from `params:` or from the search space."
            )


def _check_goals(experiment: Experiment) -> None:
    """What is known only at the end cannot say which trials to stop on the way."""
    sweep = experiment.sweep
    late = [goal.metric for goal in sweep.goals if goal.metric in SUMMARY]
    for name, value in (("pruner", sweep.pruner), ("sampler", sweep.sampler)):
        if late and (value == "bohb" or (name == "pruner" and value != "none")):
            raise ConfigError(
                f"a goal must be a score of each validation where `{name}: {value}` judges trials "
                f"by their curves, but {late[0]!r} is known at a trial's end alone. Use "
                f"`{name}: {'none' if name == 'pruner' else 'tpe'}`."
            )


def _check_measured(experiment: Experiment) -> None:
    """What is measured of a kept model can only be drawn where all trials keep theirs."""
    for figure in experiment.figures:
        names = [name for name in figure.numbers if name.startswith(MEASURED)]
        if names and not experiment.sweep.keep_models:
            raise ConfigError(
                f"`sweep.keep_models: true` must hold where a figure shows {names[0]!r}, which is "
                f"measured of kept models, but the figure {figure.name!r} does without."
            )


def _parameters(objective: str) -> list[str]:
    """The names that an objective's parameters have in files."""
    fields = load_objective(objective).params.model_fields
    return [field.alias or name for name, field in fields.items()]


@dataclass(frozen=True, slots=True)
class Checked:
    """What checking one experiment file found: an error, or a summary in words."""

    path: str
    error: str
    summary: str


def check_files(paths: Sequence[Path], overrides: Sequence[str] = ()) -> list[Checked]:
    """Checks experiments with their spaces, without training; every file, not the first fault."""
    checked = []
    for path in paths:
        try:
            plan = load_experiment(path, overrides)
        except ConfigError as error:
            checked.append(Checked(str(path), str(error), ""))
            continue
        points = [{}] if plan.space is None else list(plan.space.corners())
        sizes = [plan.size(point) for point in points]
        searched = ", ".join(plan.space) if plan.space else "nothing"
        summary = f"searches {searched}; {min(sizes):,} to {max(sizes):,} parameters"
        checked.append(Checked(str(path), "", summary))
    return checked
