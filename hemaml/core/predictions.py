"""What a live model predicted for a few images, in a file beside its weights, and how fast.

A model that is loaded again, anywhere, must predict the same: the stored answers are the proof.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Self

import numpy as np

from hemaml.core.dataset import Dataset
from hemaml.core.errors import Diverged
from hemaml.core.objective import Predictor
from hemaml.core.types import Float32Array, UInt8Array

TIMED_IMAGES, TIMINGS = 3, 3
NUM_IMAGES = 3
"""The first of a validation part; enough to tell two models apart, and little to store."""
LIVE = "live.safetensors"
"""Name of the file among a run's artifacts, next to the folder of its weights."""
TOLERANCE = {"cpu": 1e-5, "cuda": 1e-3}
"""Kind of device that a model predicted on, to the largest difference that rounding explains."""


@dataclass(frozen=True, slots=True)
class LivePredictions:
    """The answers of a model while it was in training.

    Attributes:
        values: One array an image: C probabilities, or H x W x C.
        device: The torch device that computed them.
    """

    values: Sequence[Float32Array]
    device: str

    @property
    def tolerance(self) -> float:
        """The largest difference that a model loaded on a CPU may have."""
        return TOLERANCE.get(self.device.partition(":")[0], max(TOLERANCE.values()))

    def save(self, file: Path) -> None:
        """Writes them as safetensors."""
        from safetensors.numpy import save_file

        tensors = {str(i): np.ascontiguousarray(v) for i, v in enumerate(self.values)}
        save_file(tensors, file, metadata={"device": self.device})

    @classmethod
    def load(cls, file: Path) -> "LivePredictions":
        """Reads what `save` wrote."""
        from safetensors import safe_open

        with safe_open(file, framework="numpy") as opened:
            values = [opened.get_tensor(str(i)) for i in range(len(opened.keys()))]
            return cls(values, opened.metadata()["device"])

    def largest_difference(self, others: Sequence[Float32Array]) -> float:
        """The largest absolute difference of a probability; infinite where shapes differ."""
        if [np.shape(o) for o in others] != [v.shape for v in self.values]:
            return float("inf")
        pairs = zip(self.values, others, strict=True)
        # NaN in one of them must not pass for small.
        return max((float(np.nan_to_num(np.abs(a - b), nan=np.inf).max()) for a, b in pairs))


@dataclass(frozen=True, slots=True)
class Answers:
    """What was predicted for one data set, as a predictor of just that set.

    Attributes:
        found: One array an image.
    """

    found: list[Float32Array]

    @classmethod
    def of(cls, model: Predictor, data: Dataset) -> Self:
        """What a model predicts, made once."""
        return cls(model.predict(data.images))

    def predict(self, images: Sequence[UInt8Array]) -> list[Float32Array]:
        """The stored answers, whatever is asked; it is asked for the one set."""
        assert len(images) == len(self.found)
        return self.found


def predictions(model: Predictor, images: Sequence[UInt8Array]) -> list[Float32Array]:
    """What a model predicts for images, to be scored.

    Raises:
        Diverged: A probability is not finite: its largest would be taken for that of the first
            class, and scores of that look like any others.
    """
    found = model.predict(images)
    if broken := sum(not np.isfinite(values).all() for values in found):
        raise Diverged(
            f"probabilities must be finite, but those of {broken} of {len(found)} images are not. "
            "Lower the learning rate, or look for damaged images."
        )
    return found


def ms_per_image(model: Predictor, images: Sequence[UInt8Array]) -> float:
    """Milliseconds for one image on the CPU, alone and nothing cached: median of a few.

    Each is timed some times and the fastest counts, since the CPU may be busy with other trials.
    """
    return median(
        min(_milliseconds(model, image) for _ in range(TIMINGS)) for image in images[:TIMED_IMAGES]
    )


def _milliseconds(model: Predictor, image: UInt8Array) -> float:
    started = time.perf_counter()
    model.predict([image])
    return (time.perf_counter() - started) * 1000
