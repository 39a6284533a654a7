"""The metrics of runs: which are a summary, their means over runs, and what replaces them."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from hemaml.core.tracker import Record, Run, Tracker
from hemaml.lockstep import is_curve


def summary(record: Record) -> dict[str, float]:
    """A run's metrics without its curves, sorted by name."""
    return {k: v for k, v in sorted(record.metrics.items()) if not is_curve(k)}


def mean_and_deviation(rows: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Metric to mean and sample standard deviation (NaN for one row) over the rows that define it.

    A score may be undefined for a part: recall without an image of the class, AUC with one class.
    """
    columns: dict[str, list[float]] = {}
    for row in rows:
        for name, value in sorted(row.items()):
            if value == value:
                columns.setdefault(name, []).append(value)
    return {
        name: (fmean(values), stdev(values) if len(values) > 1 else math.nan)
        for name, values in sorted(columns.items())
    }


def mean_metrics(scores: Mapping[str, tuple[float, float]], prefix: str = "") -> dict[str, float]:
    """What a run logs of means and deviations: `dice`, and `dice_std` where there is one."""
    means = {f"{prefix}{name}": mean for name, (mean, _) in scores.items()}
    spread = {f"{prefix}{n}_std": d for n, (_, d) in scores.items() if not math.isnan(d)}
    return means | spread


def replace_metrics(
    tracker: Tracker, run: Run, values: Mapping[str, float], *, but: str | None = None
) -> None:
    """Logs a run's metrics; those it has from an earlier time and not now count no more (NaN).

    Args:
        tracker: Of the run.
        run: Written before, and again now.
        values: What holds now.
        but: Names that begin so stay as they are.
    """
    known = tracker.get(run.id).metrics
    gone = {n for n in known.keys() - values.keys() if but is None or not n.startswith(but)}
    run.log_metrics({**dict.fromkeys(gone, math.nan), **values})
