"""How a sweep searches and what it may see: the `sweep:` and `split:` sections of an experiment."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from hemaml.core.space import Scalar
from hemaml.core.task import Direction
from hemaml.core.types import Frozen

Sampler = Literal["tpe", "gp", "cmaes", "bohb", "random", "grid", "nsga2"]
Pruner = Literal["hyperband", "asha", "median", "pbt", "pb2", "none"]
POPULATION = ("pbt", "pb2")
"""Pruners that end no trial, but let the worse ones go on from the state of better ones."""
Engine = Literal["native", "ray"]


class Split(Frozen):
    """How the part that a sweep may see is divided."""

    folds: Annotated[int, Field(ge=1)] | Literal["official", "each_group"] = Field(
        default=1,
        description="1: one train/validation split; k: k folds; official: those of the data set; "
        "each_group: each patient, case or slide is scored once, by a model of all others.",
    )
    val: float = Field(default=0.15, gt=0, lt=1, description="Validation share where folds is 1.")
    test: float = Field(
        default=0.1, gt=0, le=0.8, description="Test share of the random outer splits."
    )
    outer_val: float = Field(
        default=0.1, gt=0, lt=1, description="Validation share of the random outer splits."
    )
    outer_folds: int | None = Field(
        default=None,
        ge=2,
        description="So many outer splits, each item the test part of one; default: random ones.",
    )
    seed: int = 0
    group: Literal["auto", "none"] = Field(
        default="auto",
        description="auto: by patient, case or slide where the data has one; none: by image.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        test = self.test if self.outer_folds is None else 1 / self.outer_folds
        if self.outer_val + test >= 1:
            raise ValueError(
                "the outer splits must leave something to train on, but validation and test part "
                f"are {self.outer_val:g} and {test:g} of all. Lower `outer_val` or `test`."
            )
        return self


class Goal(Frozen):
    """One metric that a sweep optimises."""

    metric: str
    direction: Direction


class Resources(Frozen):
    """What the Ray engine gives to one trial; the default divides what there is by the workers."""

    cpu: float | None = Field(default=None, gt=0, description="Processors, so many threads.")
    gpu: float | None = Field(
        default=None, ge=0, description="GPUs; 0.25 packs four trials on one. Above 1, whole ones."
    )

    @field_validator("gpu")
    @classmethod
    def _check_gpu(cls, gpu: float | None) -> float | None:
        if gpu is not None and gpu > 1 and gpu != int(gpu):
            raise ValueError(f"a share of a GPU must be at most 1, or a whole number; got {gpu:g}.")
        return gpu


class Sweep(Frozen):
    """How a space is searched and when the search ends."""

    trials: int = Field(default=20, ge=1, description="Trials that end, whatever their outcome.")
    hours: float | None = Field(default=None, gt=0, description="No trial starts after these.")
    patience: int | None = Field(
        default=None, ge=1, description="Ends after so many trials without a better one."
    )
    sampler: Sampler = "tpe"
    pruner: Pruner = Field(
        default="none",
        description="Ends bad trials early; pbt and pb2 train all trials as one population.",
    )
    exploit_every: int = Field(
        default=2,
        ge=1,
        description="Validations after which a population's trial may take over another's state.",
    )
    goals: tuple[Goal, ...] = Field(default=(), description="Default: the task's primary metric.")
    first: tuple[dict[str, Scalar], ...] = Field(
        default=(), description="Points tried first, such as the paper's own."
    )
    max_params: int | None = Field(
        default=None, ge=1, description="Larger models are rejected before memory is taken."
    )
    confirm_seeds: int = Field(default=3, ge=0, description="Seeds the winner is retrained with.")
    keep_models: bool = Field(
        default=False,
        description="Every trial keeps its model, with its pictures and what they measure.",
    )
    workers: int = Field(default=1, ge=1)
    checkpoint_seconds: float = Field(
        default=10, ge=0, description="Work that a kill may cost a trial; 0 checkpoints each step."
    )
    trial_hours: float | None = Field(
        default=None,
        gt=0,
        description="A trial that takes longer is ended as failed; needs `engine: ray`.",
    )
    engine: Engine = Field(
        default="native", description="native: this machine's processes; ray: also a cluster's."
    )
    address: str | None = Field(
        default=None,
        description="Ray cluster: auto, HOST:PORT or ray://HOST:PORT; default: this machine alone.",
    )
    resources: Resources = Resources()

    @field_validator("engine", mode="before")
    @classmethod
    def _check_engine(cls, engine: Any) -> Any:
        return "native" if engine == "optuna" else engine  # recorded before there was another

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.goals) > 1 and self.pruner != "none":
            raise ValueError(
                f"`pruner: none` must hold with several goals, but got {self.pruner!r}: "
                "Optuna cannot compare unfinished trials on several metrics."
            )
        if len(self.goals) > 1 and self.sampler in ("cmaes", "bohb"):
            raise ValueError(
                f"`sampler: {self.sampler}` takes one goal; with several use tpe, gp or nsga2."
            )
        if len(self.goals) > 1 and self.patience is not None:
            raise ValueError("`patience` needs one goal, since a front has no best trial.")
        if self.trial_hours is not None and self.engine != "ray":
            raise ValueError(
                f"`engine: ray` must hold with `trial_hours`, but got {self.engine!r}: the native "
                "engine cannot end a trial that hangs without its worker."
            )
        if self.is_population:
            self._check_population()
        return self

    @property
    def is_population(self) -> bool:
        """Whether all trials are trained at once, and the worse ones go on from better ones."""
        return self.pruner in POPULATION

    def _check_population(self) -> None:
        if self.engine != "ray":
            raise ValueError(
                f"`engine: ray` must hold with `pruner: {self.pruner}`, but got {self.engine!r}."
            )
        if self.workers < self.trials:
            raise ValueError(
                f"a population is trained at once, so `workers` must be at least `trials`, but got "
                f"{self.workers} for {self.trials}. Where there are fewer processors, let trials "
                "share one: `resources: {cpu: 0.25}`."
            )
