"""What was found of one row of a paper's table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hemaml.data.splits import SplitKind
from hemaml.metrics import mean_metrics
from hemaml.ops.resampling import Interval


@dataclass(frozen=True, slots=True)
class Measured:
    """One row, measured or not.

    Attributes:
        key: Name of the row.
        label: As the paper calls it.
        paper: The paper's figures.
        reason: Why it was not measured; empty where it was.
        scores: Metric to mean and sample deviation over all test parts, or over passes against the
            clock; the model's size included.
        intervals: Metric to the 95 % interval of its mean, where one seed was used.
        splits: Outer splits a seed.
        seeds: How many.
        passes: Against the clock, in a table of times; it has no splits.
        first: The first row, which times are told as multiples of; None for that row itself.
        split_kind: What the splits keep apart.
        differences: What differs from the paper's setting, in words.
        links: Pages of the evaluations in the MLflow UI, one a seed.
    """

    key: str
    label: str
    paper: Mapping[str, float]
    reason: str = ""
    scores: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    splits: int = 0
    seeds: int = 0
    passes: int = 0
    first: "Measured | None" = None
    split_kind: SplitKind = "images"
    differences: tuple[str, ...] = ()
    links: tuple[str, ...] = ()

    def difference(self, metric: str) -> float | None:
        """Ours less the paper's; None where one of them is missing."""
        if metric not in self.scores or metric not in self.paper:
            return None
        return self.scores[metric][0] - self.paper[metric]

    def metrics(self, names: Sequence[str]) -> dict[str, float]:
        """What its run logs of the named metrics, as `smgnn/dice`, `_std`, `_paper`."""
        logged = {f"{self.key}/{n}_paper": self.paper[n] for n in names if n in self.paper}
        ours = {name: self.scores[name] for name in names if name in self.scores}
        return logged | mean_metrics(ours, f"{self.key}/")
