"""The tables of a report: the same rows for the page and for the terminal."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hemaml.core.tracker import Record
from hemaml.notes import counted, plus_minus
from hemaml.report.gather import Swept, Trial

LONGEST = 20
"""Rows of a leaderboard."""
MOST_NAMED = 8
"""Trials named beside a reason."""
DASH = "–"
SIZES = {
    "params_total": "parameters",
    "model_bytes": "model",
    "ms_per_image": "ms/image",
    "train_s": "seconds",
}
"""Numbers beside the scores, and how tables name them."""
MAPS = {
    "explain/deletion": "lower is better: without the hottest pixels the class goes fast",
    "explain/insertion": "higher is better: with the hottest pixels the class comes back fast",
    "explain/nuclei_pointing": "share of images hottest on a nucleus; by chance nuclei_area",
    "explain/nuclei_energy": "share of the heat on nuclei; by chance nuclei_area",
    "explain/nuclei_area": "share of the pixels shown that nuclei cover",
    "explain/sanity_similarity": "high: the map says little about what was learned",
}
"""Numbers on heat maps, and how they are read; see `hemaml.explain.faithfulness`."""
WINNER_SIZES = ("params_total", "model_bytes", "ms_per_image")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a title.

    Attributes:
        title: What it shows.
        columns: Heads; those in `texts` are aligned to the left.
        rows: One text a column.
        note: What a reader must know to read it right.
        links: Row index to the address of its first cell.
        texts: Columns that are no numbers.
        best: Index of the row that stands out, or None.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    links: Mapping[int, str] = field(default_factory=dict)
    texts: frozenset[str] = frozenset()
    best: int | None = None


def number(value: Any, digits: int = 4) -> str:
    """A number as tables show it: scores with four decimals, counts with separators."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return DASH
    if value == int(value) and abs(value) >= 1:
        return f"{int(value):,}"
    return f"{value:.{digits}f}" if 1e-3 <= abs(value) < 1e4 else f"{value:.3g}"


def score(value: float) -> str:
    """A score: always four decimals, or a dash where it is undefined."""
    return f"{value:.4f}" if math.isfinite(value) else DASH


def mean_and_spread(metrics: Mapping[str, float], name: str) -> str:
    """`0.9345 ± 0.0018`; without the deviation where there is none, a dash without the metric."""
    mean = metrics.get(name, math.nan)
    return plus_minus(mean, metrics.get(f"{name}_std", math.nan)) if math.isfinite(mean) else DASH


def size(metrics: Mapping[str, float], name: str) -> str:
    """One of `SIZES` with its unit where the name has none."""
    value = metrics.get(name, math.nan)
    if not math.isfinite(value):
        return DASH
    if name == "model_bytes":
        return f"{value / 1e3:,.0f} kB" if value < 1e6 else f"{value / 1e6:,.1f} MB"
    return f"{value:,.0f}" if name == "params_total" else f"{value:,.1f}"


def interval(metrics: Mapping[str, float], name: str, group: str = "ci") -> str:
    """`0.9247 to 0.9437`, or a dash."""
    low, high = (metrics.get(f"{group}/{name}_{end}", math.nan) for end in ("low", "high"))
    return f"{low:.4f} to {high:.4f}" if math.isfinite(low + high) else DASH


def winners(sweeps: Sequence[Swept]) -> Table:
    """One row a sweep, of one task, data set and goal: its confirmed winner, the best first."""
    goal, sign = sweeps[0].goal.metric, sweeps[0].sign
    ranked = sorted(sweeps, key=lambda s: -sign * s.record.metrics.get(goal, -sign * math.inf))
    rows = [
        [
            sweep.name,
            sweep.record.tags["objective"].partition(".")[2],
            mean_and_spread(sweep.record.metrics, goal),
            interval(sweep.record.metrics, goal),
            sweep.record.tags["split.kind"],
            *(size(sweep.record.metrics, name) for name in WINNER_SIZES),
            f"{sweep.gpu_hours:.2f}",
            f"{sweep.hours:.2f}",
            f"{len(sweep.finished)} of {len(sweep.trials)}",
            sweep.record.tags.get("outcome", DASH),
        ]
        for sweep in ranked
    ]
    same = len({sweep.record.tags["split_digest"] for sweep in sweeps}) == 1
    seeds = max(len(sweep.seeds) for sweep in sweeps)
    over = f"Mean ± deviation over {counted(seeds, 'seed')} at most"
    note = f"{over}, on validation; 95 % intervals by bootstrap."
    if not same:
        note += " The validation parts differ: `hemaml promote` compares on the same images."
    sizes = [SIZES[name] for name in WINNER_SIZES]
    heads = ("sweep", "objective", goal, "95 % interval", "split", *sizes, "GPU-hours", "hours",
             "finished", "state")  # fmt: skip
    return Table(
        f"Winners: {sweeps[0].task} on {sweeps[0].record.tags['data']}",
        heads,
        rows,
        note,
        links={i: sweep.page(sweep.record.id) for i, sweep in enumerate(ranked)},
        texts=frozenset({"sweep", "objective", "split", "state"}),
        best=0 if goal in ranked[0].record.metrics else None,
    )


def of_sweep(sweep: Swept) -> list[Table]:
    """All tables of one sweep, in order."""
    made = (leaderboard, against_paper, views, by_class, by_group, believed, failures)
    return [table for make in made if (table := make(sweep)) is not None]


def leaderboard(sweep: Swept) -> Table:
    """The best trials of the search, one seed each."""
    shown = sweep.finished[:LONGEST]
    goals = [goal.metric for goal in sweep.goals]
    sizes = [name for name in SIZES if name not in goals]
    rows = [
        [
            str(trial.number),
            *(number(trial.value(metric)) for metric in goals),
            *(size(trial.metrics, name) for name in sizes),
            *(number(trial.point.get(name, DASH)) for name in sweep.space),
        ]
        for trial in shown
    ]
    left = len(sweep.finished) - len(shown)
    note = "One seed each, on validation: the winner's own score is in the table above."
    if left:
        note = f"The best {len(shown)} of {len(sweep.finished)}. {note}"
    return Table(
        "Leaderboard of the search",
        ("trial", *goals, *(SIZES[name] for name in sizes), *sweep.space),
        rows,
        note,
        links={i: sweep.page(trial.run_id) for i, trial in enumerate(shown)},
        best=0 if shown else None,
    )


def against_paper(sweep: Swept) -> Table | None:
    """The winner beside the paper's figures; None where the experiment names none."""
    names = [name for name in sweep.paper if name != "source"]
    ours = sweep.record.metrics
    if not names or not any(name in ours for name in names):
        return None
    rows = [
        [name, mean_and_spread(ours, name), interval(ours, name), str(sweep.paper[name]),
         f"{ours[name] - sweep.paper[name]:+.4f}" if name in ours else DASH]
        for name in names
    ]  # fmt: skip
    source = sweep.paper.get("source", "not stated")
    return Table(
        "Beside the paper",
        ("metric", "ours", "95 % interval", "paper", "difference"),
        rows,
        f"Paper: {source}. Its splits are others: a neighbour, not a rival.",
        texts=frozenset({"metric"}),
    )


def views(sweep: Swept) -> Table | None:
    """Other models that were scored beside the winner (`mlp/auc`), or None."""
    goal, metrics = sweep.goal.metric, sweep.record.metrics
    heads = list(dict.fromkeys([goal, *(n for n in sweep.paper if n != "source" and n in metrics)]))
    found = sorted(
        view
        for name in metrics
        if (view := name.removesuffix(f"/{goal}")) != name
        and view.partition("/")[0] not in ("ci", "val", "test", "train")
    )
    if not found:
        return None
    rows = [["the model itself", *(mean_and_spread(metrics, name) for name in heads)]]
    rows += [[v, *(mean_and_spread(metrics, f"{v}/{name}") for name in heads)] for v in found]
    return Table(
        "Beside the model", ("model", *heads), rows,
        "Trained on the same images by the same point, scored on the same validation part.",
        texts=frozenset({"model"}),
    )  # fmt: skip


def by_class(sweep: Swept) -> Table | None:
    """Scores of each class alone, or None where none was recorded."""
    metrics = sweep.record.metrics
    scores = sorted({n.rpartition("/")[0] for n in metrics} - {""})
    scores = [s for s in scores if any(f"{s}/{c}" in metrics for c in sweep.classes)]
    scores = [s for s in scores if "/" not in s]
    if scores:
        rows = [
            [name, *(mean_and_spread(metrics, f"{score}/{name}") for score in scores)]
            for name in sweep.classes
        ]
        return Table("By class", ("class", *scores), rows, texts=frozenset({"class"}))
    if not sweep.by_class:
        return None
    rows = [[name, score(value)] for name, value in sweep.by_class.items()]
    note = "Of the winner's first seed: the share of the class's images that are found."
    return Table("By class", ("class", "recall"), rows, note, texts=frozenset({"class"}))


def by_group(sweep: Swept) -> Table | None:
    """The winner's score of each patient, case or slide, the worst first; or None."""
    if not sweep.by_group:
        return None
    ranked = sorted(sweep.by_group.items(), key=lambda item: (item[1], item[0]))
    rows = [[name, score(value)] for name, value in ranked]
    note = "Of the winner's first seed, on validation; the worst first."
    return Table("By group", ("group", "score"), rows, note, texts=frozenset({"group"}))


def believed(sweep: Swept) -> Table | None:
    """What was measured of the heat maps of the winner, or None where nothing was."""
    metrics = sweep.record.metrics
    rows = [[n, mean_and_spread(metrics, n), read] for n, read in MAPS.items() if n in metrics]
    if not rows:
        return None
    num = number(metrics["explain/images"]) if "explain/images" in metrics else "some"
    note = f"Over the winner's seeds, on {num} validation images each; deletion and insertion cost "
    note += "more, rest on some of them, and depend on how sure a model is: see its scores."
    heads = ("number", "winner", "how to read it")
    return Table("How far its maps can be believed", heads, rows, note,
                 texts=frozenset({"number", "how to read it"}))  # fmt: skip


def failures(sweep: Swept) -> Table | None:
    """Trials that did not finish, by outcome and reason; None where all did."""
    groups: dict[tuple[str, str], list[Trial]] = defaultdict(list)
    for trial in sweep.trials:
        if trial.outcome != "finished":
            groups[trial.outcome, trial.reason].append(trial)
    if not groups:
        return None
    ranked = sorted(groups.items(), key=lambda item: -len(item[1]))
    rows = [
        [outcome, str(len(trials)), reason or DASH, _numbers(trials)]
        for (outcome, reason), trials in ranked
    ]
    return Table(
        "What did not finish",
        ("outcome", "trials", "reason", "which"),
        rows,
        texts=frozenset({"outcome", "reason", "which"}),
    )


def _numbers(trials: Sequence[Trial]) -> str:
    told = ", ".join(str(trial.number) for trial in trials[:MOST_NAMED])
    left = len(trials) - MOST_NAMED
    return f"{told} and {left} more" if left > 0 else told


def evaluations(records: Sequence[Record], metric: str) -> Table | None:
    """Scores on the test parts of outer splits, one row an evaluation; None where there is none."""
    done = [r for r in records if f"test/{metric}" in r.metrics]
    if not done:
        return None
    rows = [
        [
            record.tags["experiment"],
            mean_and_spread(
                {k.removeprefix("test/"): v for k, v in record.metrics.items()}, metric
            ),
            interval(record.metrics, metric, "test_ci"),
            record.tags.get("splits", DASH),
            record.tags["split.kind"],
            record.tags["data"],
        ]
        for record in done
    ]
    return Table(
        "Evaluations: test parts of outer splits",
        ("experiment", f"test {metric}", "95 % interval", "splits", "split", "data"),
        rows,
        "Mean ± deviation over the splits, each test part scored once; the interval of the mean is "
        "by bootstrap over groups (images where there are none).",
        texts=frozenset({"experiment", "split", "data"}),
    )
