"""A task and an objective that cost nothing and fail on demand, for tests of what drives them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from hemaml.core.comparison import Comparison
from hemaml.core.dataset import Dataset
from hemaml.core.errors import Diverged, OutOfMemory, UnknownName
from hemaml.core.objective import Context, Objective, Step
from hemaml.core.task import Fold, Task
from hemaml.core.types import Frozen
from hemaml.data import splits

EXPERIMENT = {
    "name": "stub",
    "objective": "stub.stub",
    "question": "Does it work?",
    "data": {"count": 24},
    "params": {"epochs": 4},
    "sweep": {"trials": 6, "sampler": "random", "confirm_seeds": 2, "checkpoint_seconds": 0},
    "paper": {"source": "Nobody 2026, Table 0", "score": 0.5},
}
SPACE = {"x": {"type": "float", "low": 0, "high": 1}}


class Params(Frozen):
    x: float = Field(default=0.5, ge=0, le=1)
    width: int = Field(default=4, ge=1)
    epochs: int = Field(default=4, ge=0)
    mode: Literal["fine", "nan", "oom", "boom", "flaky"] = "fine"


class StubModel:
    def __init__(self, x: float) -> None:
        self.x = x

    @property
    def num_trainable(self) -> int:
        return 1

    def predict(self, images):
        return [np.array([self.x, 1 - self.x], dtype=np.float32) for _ in images]

    def save(self, folder: Path) -> None:
        (folder / "model.json").write_text(json.dumps({"x": self.x}))

    @classmethod
    def load(cls, folder: Path) -> "StubModel":
        return cls(**json.loads((folder / "model.json").read_text()))


on_step: list[Callable[[int], None]] = []
"""Called with each step's index before it is yielded: tests put a kill here."""
trained: list[float] = []
"""The x of every fit that was started."""


def fit(params: Params, fold: Fold, context: Context) -> Iterator[Step]:
    trained.append(params.x)
    if params.mode == "boom":
        raise RuntimeError("something broke")
    if params.mode == "oom":
        raise OutOfMemory("no memory for a batch of 32")
    start = context.state["epoch"] if context.state else 0
    noise = (context.seed % 1000) / 1e5
    for epoch in range(start, params.epochs):
        if params.mode == "nan" and epoch == 2:
            raise Diverged("the loss must be finite, but it is nan in epoch 2.")
        for call in on_step:
            call(epoch)
        score = 1 - (params.x - 0.3) ** 2 - 0.1 / (epoch + 1) + noise
        yield Step(
            epoch,
            {"score": score, "score/a": score, "train/loss": 1 / (epoch + 1), "time/epoch_s": 0.01},
            StubModel(params.x),
            lambda epoch=epoch: {"epoch": epoch + 1},
        )


def read(section) -> Dataset:
    count = int(section.get("count", 24))
    rng = np.random.default_rng(0)
    images = tuple(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8) for _ in range(count))
    ids = tuple(f"{i:03d}" for i in range(count))
    labels = tuple(i % 2 for i in range(count))
    return Dataset("stub", ("no", "yes"), ids, images, ids, labels=labels, source="stub")


def x_of(model, data) -> float:
    """What the model predicts for any image."""
    return float(model.predict(data.images)[0][0])


def compare(candidate, champion, data, metric) -> Comparison:
    """A difference of .1 or more is sure."""
    if metric != "score":
        raise UnknownName("metric to compare", metric, ["score"])
    gain = x_of(candidate, data) - x_of(champion, data)
    p = 0.01 if abs(gain) >= 0.1 else 0.5
    num = len(data)
    return Comparison(gain, gain - 0.1, gain + 0.1, p, "stub test", gain, "gain", num, num)


task = Task(
    name="stub",
    primary="score",
    direction="maximize",
    read=read,
    held_out=lambda data: splits.held_out(data, seed=0),
    folds=splits.folds,
    outer=splits.outer,
    score=lambda model, data: {"score": x_of(model, data)},
    compare=compare,
    by_class=lambda model, data: dict.fromkeys(data.classes, x_of(model, data)),
    by_group=lambda model, data: dict.fromkeys(sorted(set(data.groups)), x_of(model, data)),
)
objective = Objective(
    task,
    Params,
    StubModel,
    fit,
    size=lambda params: params.width * 10,
    mutable=frozenset({"x"}),
)
