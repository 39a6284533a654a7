"""Figures that an experiment asks for: what is drawn of its trials against what, as data."""

from collections.abc import Sequence
from typing import Self

from pydantic import Field, model_validator

from hemaml.core.errors import ConfigError, UnknownName
from hemaml.core.space import Scalar, Space
from hemaml.core.types import Frozen


class PaperPoint(Frozen):
    """A value that a paper prints."""

    x: Scalar
    y: float
    name: str = ""


class StudyFigure(Frozen):
    """One figure over a sweep's finished trials, each mark a point with all of its seeds.

    A mark stands at the mean over trials that differ in nothing but `seed` and `over`, with their
    standard deviation as bar. Marks of equal `by` are one line where x is a number.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_]*$", description="Of its files.")
    title: str
    x: str = Field(description="A searched parameter, or a number that each trial records.")
    y: str = Field(default="", description="A recorded number; default: the first goal.")
    minus: str = Field(
        default="", description="A recorded number that is taken from y, trial by trial."
    )
    by: tuple[str, ...] = Field(default=(), description="Searched parameters, a line each value.")
    over: tuple[str, ...] = Field(
        default=(), description="Searched parameters that are averaged over, such as a draw."
    )
    size: str = Field(
        default="", description="A recorded number that makes the marks bubbles of its size."
    )
    words: dict[str, str] = Field(
        default={}, description="What the figure calls a parameter, a number, or a value."
    )
    source: str = Field(default="", description="Of `paper`.")
    paper: tuple[PaperPoint, ...] = ()

    @property
    def numbers(self) -> tuple[str, ...]:
        """What it shows that may be a recorded number; x may be a parameter instead."""
        return tuple(filter(None, (self.x, self.y, self.minus, self.size)))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.paper and not self.source:
            raise ValueError("`source` must say where the points of `paper` are printed.")
        return self


def check_figures(figures: Sequence[StudyFigure], space: Space, *, unnamed: Sequence[str]) -> None:
    """Whether each figure tells apart whatever the space varies.

    Args:
        figures: Of the experiment.
        space: Of the same.
        unnamed: Parameters that each figure averages over.

    Raises:
        UnknownName: `by` or `over` names what is not searched.
        ConfigError: Two figures have one name, or one shows different points as one, or a point of
            a paper is at none of the values of x.
    """
    if len({figure.name for figure in figures}) < len(figures):
        raise ConfigError(
            f"`name` must differ, but the figures have {[figure.name for figure in figures]}."
        )
    for figure in figures:
        for name in (*figure.by, *figure.over):
            if name not in space.root:
                raise UnknownName("searched parameter", name, space.root)
        named = {figure.x, *figure.by, *figure.over, *unnamed}
        if figure.x in space.root and (hidden := [n for n in space if n not in named]):
            raise ConfigError(
                f"a figure over a parameter must name all others in `by` or `over`, but "
                f"{figure.name!r} leaves out {hidden[0]!r}, whose values it would mix."
            )
        axis = space.root.get(figure.x)
        for point in figure.paper:
            if axis is not None:
                axis.coerce(figure.x, point.x)
