"""Search spaces: parameter name to range, read from YAML and sampled define-by-run.

The kinds and their fields are Optuna's distributions. Every engine samples through
`Space.suggest`, which needs nothing but an object with Optuna's three `suggest_*` methods.
"""

import hashlib
import itertools
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import Discriminator, Field, RootModel, Tag, model_validator

from hemaml.core.documents import canonical_json, read_yaml, validated
from hemaml.core.errors import ConfigError, UnknownName
from hemaml.core.types import Frozen, Point

Scalar = bool | int | float | str | None


class Suggests(Protocol):
    """What a sampler's trial offers (Optuna's `Trial`, and Ray's wrapper of it)."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A float of the range."""

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """An integer of the range."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of the choices."""


class _Dimension(Frozen):
    when: dict[str, Scalar | list[Scalar]] = Field(
        default={}, description="Sampled only where each named parameter has one of these values."
    )

    def active(self, point: Point) -> bool:
        """Whether the conditions hold at what is chosen so far."""
        return all(
            point.get(name) in (allowed if isinstance(allowed, list) else [allowed])
            for name, allowed in self.when.items()
        )


class _Range(_Dimension):
    log: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high, step = self.low, self.high, self.step  # type: ignore[attr-defined]
        if not low <= high:
            raise ValueError(f"`low <= high` must hold, but got low={low}, high={high}.")
        if self.log and low <= 0:
            raise ValueError(f"`low > 0` must hold with `log: true`, but got low={low}.")
        if self.log and step not in (None, 1):
            raise ValueError(f"`step` and `log: true` exclude each other, but got step={step}.")
        if step is not None and step <= 0:
            raise ValueError(f"`step > 0` must hold, but got step={step}.")
        return self

    @property
    def extremes(self) -> tuple[Scalar, ...]:
        """The values that bounds are checked at."""
        return self.low, self.high  # type: ignore[attr-defined]


class FloatRange(_Range):
    """A float between `low` and `high`, both included."""

    type: Literal["float"]
    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)
    step: float | None = Field(default=None, allow_inf_nan=False)

    def suggest(self, trial: Suggests, name: str) -> Scalar:
        """One value from the sampler."""
        return float(trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log))

    def coerce(self, name: str, value: object) -> Scalar:
        """A value given by hand as the float it stands for. Raises `ConfigError` outside."""
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = float("nan")
        if isinstance(value, bool) or not self.low <= number <= self.high:
            raise ConfigError(
                f"{name!r} must lie between {self.low} and {self.high}, but got {value!r}."
            )
        return number

    def grid(self, name: str) -> list[Scalar]:
        """All values; needs `step`."""
        if self.step is None:
            raise ConfigError(
                f"the grid sampler needs `step` on float {name!r}, but it has none. "
                "Add a step, or list the values as a categorical."
            )
        count = int((self.high - self.low) / self.step + 1e-9) + 1
        return [self.low + i * self.step for i in range(count)]


class IntRange(_Range):
    """An integer between `low` and `high`, both included."""

    type: Literal["int"]
    low: int
    high: int
    step: int = 1

    def suggest(self, trial: Suggests, name: str) -> Scalar:
        """One value from the sampler."""
        return int(trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log))

    def coerce(self, name: str, value: object) -> Scalar:
        """A value given by hand. Raises `ConfigError` where the range does not have it."""
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or value not in range(self.low, self.high + 1, self.step):
            raise ConfigError(
                f"{name!r} must be a whole number from {self.low} to {self.high} in steps of "
                f"{self.step}, but got {value!r}."
            )
        assert isinstance(value, int)
        return value

    def grid(self, name: str) -> list[Scalar]:
        """All values."""
        return list(range(self.low, self.high + 1, self.step))


class Choice(_Dimension):
    """One of a list of values without order."""

    type: Literal["categorical"]
    choices: list[Scalar] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        keys = [(type(value), value) for value in self.choices]
        if len(set(keys)) != len(keys):
            raise ValueError(f"`choices` must differ from each other, but got {self.choices}.")
        return self

    @property
    def extremes(self) -> tuple[Scalar, ...]:
        """The values that bounds are checked at: all of them."""
        return tuple(self.choices)

    def suggest(self, trial: Suggests, name: str) -> Scalar:
        """One value from the sampler."""
        chosen: Scalar = trial.suggest_categorical(name, self.choices)
        return chosen

    def coerce(self, name: str, value: object) -> Scalar:
        """A value given by hand. Raises `ConfigError` where it is none of the choices."""
        for choice in self.choices:
            if type(choice) is type(value) and choice == value:
                return choice
        raise ConfigError(f"{name!r} must be one of {self.choices}, but got {value!r}.")

    def grid(self, name: str) -> list[Scalar]:
        """All values."""
        return list(self.choices)


def _kind(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return kind if isinstance(kind, str) else None


Dimension = Annotated[
    Annotated[FloatRange, Tag("float")]
    | Annotated[IntRange, Tag("int")]
    | Annotated[Choice, Tag("categorical")],
    Discriminator(_kind),
]


class Space(RootModel[dict[str, Dimension]]):
    """Parameter name to range, in the order of sampling."""

    model_config = {"frozen": True}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.root:
            raise ValueError("a search space must name at least one parameter, but it is empty.")
        seen: set[str] = set()
        for name, dimension in self.root.items():
            for parent in dimension.when:
                if parent not in seen:
                    raise ValueError(
                        f"`when:` of {name!r} must name a parameter that stands above it, "
                        f"but got {parent!r}."
                    )
            seen.add(name)
        return self

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        return iter(self.root)

    def __len__(self) -> int:
        return len(self.root)

    @property
    def digest(self) -> str:
        """Hex digest of all ranges: part of a study's name, since a study's ranges are fixed."""
        text = canonical_json(self.model_dump(mode="json"))
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()

    def suggest(self, trial: Suggests) -> Point:
        """Samples one point; parameters whose `when:` does not hold are left out."""
        point: Point = {}
        for name, dimension in self.root.items():
            if dimension.active(point):
                point[name] = dimension.suggest(trial, name)
        return point

    def coerce(self, point: Mapping[str, object]) -> Point:
        """A point given by hand, perhaps in part, as the sampler would give it.

        Raises:
            UnknownName: A name that is not searched.
            ConfigError: A value outside its range.
        """
        for name in point:
            if name not in self.root:
                raise UnknownName("searched parameter", name, self.root)
        return {name: self.root[name].coerce(name, value) for name, value in point.items()}

    def grid(self, seed: int = 0) -> list[Point]:
        """All points of the grid once, in an order drawn by the seed.

        Raises:
            ConfigError: A float range has no step.
        """
        values = [dimension.grid(name) for name, dimension in self.root.items()]
        points = [
            self._drop_inactive(dict(zip(self.root, chosen, strict=True)))
            for chosen in itertools.product(*values)
        ]
        unique = list({canonical_json(point): point for point in points}.values())
        random.Random(seed).shuffle(unique)
        return unique

    def corners(self) -> Iterator[Point]:
        """Points that visit every end of every range once, conditions made to hold."""
        base: Point = {name: dimension.extremes[0] for name, dimension in self.root.items()}
        for name, dimension in self.root.items():
            for value in dimension.extremes:
                corner = base | {name: value} | self._conditions(name)
                yield self._drop_inactive(corner)

    def _conditions(self, name: str) -> Point:
        chosen: Point = {}
        for parent, allowed in self.root[name].when.items():
            value = allowed[0] if isinstance(allowed, list) else allowed
            chosen |= {parent: value} | self._conditions(parent)
        return chosen

    def _drop_inactive(self, point: Mapping[str, Scalar]) -> Point:
        kept: Point = {}
        for name, dimension in self.root.items():
            if dimension.active(kept):
                kept[name] = point[name]
        return kept


def load_space(path: Path) -> Space:
    """Reads a search space.

    Raises:
        ConfigError: No such file, no YAML, or a range that breaks a rule; names the path of the
            fault.
    """
    if not path.is_file():
        known = [str(p.relative_to(path.parents[1])) for p in path.parents[1].glob("*/*.yaml")]
        raise UnknownName("search space", f"{path.parent.name}/{path.name}", known)
    return validated(Space, read_yaml(path), path.name)
