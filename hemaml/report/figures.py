"""Figures of a search over its trials: history, size, learning curves; and of several winners.

Colours are mid-tones that stand out from a light and from a dark page; text and grid are coloured
by the page. Above `MANY` trials points are drawn by WebGL, and curves are a sample.

Letters: T trials.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hemaml.core.sweep import Goal
from hemaml.core.types import Float64Array
from hemaml.report.gather import Swept, Trial

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BLUE, ORANGE, GREEN, GREY = "#3f7fe0", "#e0752d", "#23966a", "#8d97a5"
WORSE_TO_BETTER = ((0.0, GREY), (0.5, BLUE), (1.0, ORANGE))
"""Colours of lines by score."""
MANY = 2000
"""Trials above which points are drawn by WebGL."""
CURVES = 120
"""Learning curves at most: the best half of them, the rest evenly from the others."""
SIZE = "params_total"
LARGEST, SMALLEST = 60, 12
"""Diameters of bubbles, in pixels."""


def scatter(num: int) -> type[Any]:
    """The kind of trace for so many points."""
    from plotly import graph_objects as go

    kind: type[Any] = go.Scattergl if num > MANY else go.Scatter
    return kind


def new_figure(x: str, y: str, *, height: int = 360) -> "Figure":
    """An empty figure with named axes, so many pixels high."""
    from plotly import graph_objects as go

    figure = go.Figure()
    figure.update_layout(
        template="none", margin={"l": 64, "r": 16, "t": 16, "b": 52}, height=height,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )  # fmt: skip
    figure.update_xaxes(title=x, zeroline=False)
    figure.update_yaxes(title=y, zeroline=False)
    return figure


def column(trials: Sequence[Trial], metric: str) -> Float64Array:
    """T values of a metric."""
    return np.array([trial.value(metric) for trial in trials], dtype=np.float64)


def told(trials: Sequence[Trial]) -> list[str]:
    """What is shown of each trial under the pointer."""
    return [
        f"trial {t.number}<br>"
        + "<br>".join(f"{k} = {v:.4g}" if isinstance(v, float) else f"{k} = {v}"
                      for k, v in t.point.items())
        for t in trials
    ]  # fmt: skip


def history(sweep: Swept) -> "Figure":
    """Each trial's value in the order of the search, and the best so far."""
    goal = sweep.goal.metric
    figure = new_figure("trial", goal)
    done = sorted(sweep.finished, key=lambda trial: trial.number)
    stopped = [t for t in sweep.trials if t.outcome == "pruned" and math.isfinite(t.value(goal))]
    kind = scatter(len(sweep.trials))
    for name, trials, style in (
        ("finished", done, {"color": BLUE, "size": 7}),
        ("pruned", stopped, {"color": GREY, "size": 6, "symbol": "x-thin-open", "opacity": 0.6}),
    ):
        if trials:
            figure.add_trace(
                kind(x=np.array([t.number for t in trials]), y=column(trials, goal), name=name,
                     mode="markers", marker=style, text=told(trials), hoverinfo="text+y")
            )  # fmt: skip
    if done:
        values = column(done, goal)
        best = sweep.sign * np.maximum.accumulate(sweep.sign * values)
        figure.add_trace(
            kind(x=np.array([t.number for t in done]), y=best, name="best so far", mode="lines",
                 line={"color": ORANGE, "width": 2, "shape": "hv"}, hoverinfo="y")
        )  # fmt: skip
    if isinstance(reported := sweep.paper.get(goal), int | float):
        figure.add_hline(y=reported, line={"color": GREEN, "dash": "dot"},
                         annotation={"text": "paper", "font": {"color": GREEN}})  # fmt: skip
    return whole_steps(figure, len(sweep.trials))


def whole_steps(figure: "Figure", num: int) -> "Figure":
    """The same figure; where x has few values, only whole numbers are named."""
    if num <= 12:
        figure.update_xaxes(dtick=1)
    return figure


def front(costs: Float64Array, values: Float64Array) -> list[int]:
    """Indices that no other point beats in both, the cheapest first.

    Args:
        costs: T numbers, signed so that less is better.
        values: T scores, signed so that more is better.
    """
    order = np.lexsort((-values, costs))
    chosen: list[int] = []
    for index in order:
        if not chosen or values[index] > values[chosen[-1]]:
            chosen.append(int(index))
    return chosen


def trade_off(sweep: Swept) -> "Figure | None":
    """The goal against the second one, by default the number of parameters, with the Pareto front.

    None where all trials have the same of the second.
    """
    goal, done = sweep.goal.metric, sweep.finished
    second = sweep.goals[1] if len(sweep.goals) > 1 else Goal(metric=SIZE, direction="minimize")
    sign = 1 if second.direction == "minimize" else -1
    costs = np.array([t.metrics.get(second.metric, math.nan) for t in done], dtype=np.float64)
    if len(np.unique(costs[np.isfinite(costs)])) < 2:
        return None
    values = column(done, goal)
    figure = new_figure("parameters" if second.metric == SIZE else second.metric, goal)
    figure.add_trace(
        scatter(len(done))(
            x=costs, y=values, mode="markers", name="trials", text=told(done), hoverinfo="text+x+y",
            marker={"color": BLUE, "size": 7, "opacity": 0.65},
        )
    )  # fmt: skip
    _add_front(figure, costs, values, front(sign * costs, sweep.sign * values), 13)
    if costs.min() > 0 and costs.max() > 10 * costs.min():
        figure.update_xaxes(type="log", dtick=1)
    return figure


def _add_front(
    figure: "Figure", x: Float64Array, y: Float64Array, chosen: Sequence[int], size: Any
) -> None:
    """Rings around the points of a front, and the steps between them."""
    ring = {"color": "rgba(0,0,0,0)", "size": size, "line": {"color": ORANGE, "width": 2}}
    figure.add_trace(
        scatter(0)(
            x=x[chosen], y=y[chosen], mode="lines+markers", name="Pareto front", marker=ring,
            line={"color": ORANGE, "width": 1.5, "shape": "hv"}, hoverinfo="skip",
        )
    )  # fmt: skip


def diameters(sizes: Float64Array) -> Float64Array:
    """Of bubbles, in pixels, evenly along the logarithm: sizes may differ ten thousand times."""
    logs = np.log10(np.maximum(sizes, 1e-9))
    spread = max(float(np.ptp(logs)), 1e-9)
    return np.asarray(SMALLEST + (LARGEST - SMALLEST) * (logs - logs.min()) / spread)


def bubbles(sweeps: Sequence[Swept]) -> "Figure | None":
    """Winners of several sweeps: score against parameters, as Figure 9 of Jiang et al. 2024.

    The radius grows with the logarithm of the number of parameters, as sizes differ ten thousand
    times; hollow diamonds are the papers' figures. None for fewer than two winners.
    """
    goal = sweeps[0].goal.metric
    shown = [s for s in sweeps if goal in s.record.metrics and "params_total" in s.record.metrics]
    if len(shown) < 2:
        return None
    sizes = np.array([max(s.record.metrics["params_total"], 1.0) for s in shown])
    across = diameters(sizes)
    values = np.array([s.record.metrics[goal] for s in shown])
    names = [s.record.tags["experiment"] for s in shown]
    figure = new_figure("parameters", goal, height=440)
    figure.add_trace(
        scatter(0)(
            x=sizes, y=values, mode="markers+text", text=names, textposition="top center",
            name="ours, on validation", cliponaxis=False,
            error_y={"array": [s.record.metrics.get(f"{goal}_std", 0.0) for s in shown],
                     "color": GREY, "thickness": 1},
            marker={"size": across, "color": BLUE, "opacity": 0.55},
        )
    )  # fmt: skip
    reported = [s.paper.get(goal) for s in shown]
    if any(isinstance(value, int | float) for value in reported):
        figure.add_trace(
            scatter(0)(
                x=sizes, y=reported, mode="markers", name="the papers', on their splits",
                text=names, hoverinfo="text+y",
                marker={"symbol": "diamond-open", "size": 11, "color": GREEN, "line_width": 2},
            )
        )  # fmt: skip
    chosen = front(sizes, sweeps[0].sign * values)
    _add_front(figure, sizes, values, chosen, across[chosen] + 5)
    figure.update_xaxes(type="log", dtick=1 if sizes.max() > 10 * sizes.min() else None)
    return figure


def drawn_curves(sweep: Swept) -> list[Trial]:
    """The trials whose learning curves are drawn, the best last, so that it lies on top."""
    others = [t for t in sweep.trials if t.outcome != "finished" and t.outcome != "over_budget"]
    ranked = [*sweep.finished, *others]
    if len(ranked) <= CURVES:
        return ranked[::-1]
    rest = np.linspace(CURVES // 2, len(ranked) - 1, CURVES - CURVES // 2).astype(int)
    return [ranked[i] for i in [*rest[::-1], *range(CURVES // 2 - 1, -1, -1)]]


def learning_curves(sweep: Swept) -> "Figure | None":
    """The goal at each validation; pruned trials faint. None where trials validate once."""
    goal, chosen = sweep.goal.metric, drawn_curves(sweep)
    curves = [sweep.tracker.curve(trial.run_id, f"val/{goal}") for trial in chosen]
    if not any(len(steps) > 1 for steps, _ in curves):
        return None
    figure = new_figure("validation", goal)
    best = sweep.finished[0].number if sweep.finished else None
    seen: set[str] = set()
    for trial, (steps, values) in zip(chosen, curves, strict=True):
        kind = "finished" if trial.outcome == "finished" else "did not finish"
        style = {"color": BLUE, "width": 1.2} if kind == "finished" else {"color": GREY, "width": 1}
        opacity = 0.55 if kind == "finished" else 0.3
        if trial.number == best:
            kind, style, opacity = "the best", {"color": ORANGE, "width": 2.6}, 1.0
        figure.add_trace(
            scatter(0)(x=np.array(steps), y=np.array(values), mode="lines", line=style, name=kind,
                       legendgroup=kind, showlegend=kind not in seen, opacity=opacity,
                       text=f"trial {trial.number}", hoverinfo="text+y")
        )  # fmt: skip
        seen.add(kind)
    return whole_steps(figure, max(len(steps) for steps, _ in curves))
