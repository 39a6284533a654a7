"""Gates: what a candidate must show on the held-out part before it becomes the champion.

    gates:
      dice: {at_least: 0.93, better: true}
      params_total: {at_most: 1e6}
      ms_per_image: {at_most: 50}
      ece: {at_most: 0.1, not_worse_by: 0.02}
      by_class: {at_least: 0.85, not_worse_by: 0.02}
      by_group: {not_worse_by: 0.1}

A name is a score of the task, measured on the held-out part, or one of `RECORDED`, taken from the
record: times and memory are those of the machine, device and load of the training. `by_class` and
`by_group` hold for every class and every group alone. A model that equals the champion is not
`better`, but it is `not_worse_by` any margin.

Some checks are no choice and need no line here: equal label set and held-out part, no leaky split,
no protocol that saw the held-out part, a reloaded model that predicts as the live one did.
"""

from typing import Self

from pydantic import Field, model_validator

from hemaml.core.types import Frozen

RECORDED = (
    "model_bytes", "ms_per_image", "params_total", "params_trainable", "peak_memory_mb", "train_s",
)  # fmt: skip
"""Names of gates that are not scores; less is better in all of them."""
BY_CLASS, BY_GROUP = "by_class", "by_group"


class Gate(Frozen):
    """Bounds of one number; those that are given must all hold."""

    at_least: float | None = Field(default=None, description="Floor.")
    at_most: float | None = Field(default=None, description="Ceiling.")
    better: bool = Field(
        default=False, description="Than the champion, and by more than the paired test's noise."
    )
    not_worse_by: float | None = Field(
        default=None,
        ge=0,
        description="Than the champion: the whole 95 % interval of the difference must be within; "
        "for a class or a group, the difference itself.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self == type(self).model_construct():
            raise ValueError(
                "a gate needs one of `at_least`, `at_most`, `better: true` and `not_worse_by`."
            )
        floor, ceiling = self.at_least, self.at_most
        if floor is not None and ceiling is not None and floor > ceiling:
            raise ValueError(f"`at_least <= at_most` must hold, but got {floor} and {ceiling}.")
        return self

    @property
    def compares(self) -> bool:
        """Whether it needs a champion."""
        return self.better or self.not_worse_by is not None


Gates = dict[str, Gate]
