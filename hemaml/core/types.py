"""Array types and the frozen configuration base that every layer shares."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

UInt8Array = NDArray[np.uint8]
BoolArray = NDArray[np.bool_]
Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
Arrays = dict[str, NDArray[Any]]
Point = dict[str, float | int | str | bool | None]
"""What a sampler chose: parameter name to value."""


class Frozen(BaseModel):
    """Configuration: frozen, typed, inert; unknown keys are rejected."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def in_force(self) -> dict[str, Any]:
        """What a result depends on, as JSON values under the names that fields have in files.

        That is all fields, unless a class knows of values that others make idle: it leaves those
        out, and completes what is in use by its defaults. Trials that are equal in it are the same,
        and tables of papers compare it; runs record all that was asked for, which is `model_dump`.
        """
        return self.model_dump(mode="json", by_alias=True)
