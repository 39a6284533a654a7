"""Draws the figures that an experiment asks for: with Plotly for pages, as PNG for the UI."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hemaml.core.types import Float64Array
from hemaml.explain.canvas import INK, MUTED, RULE, axes_at, new_page, to_png, write
from hemaml.notes import counted, plus_minus
from hemaml.report.figures import BLUE, GREEN, GREY, ORANGE, diameters, new_figure, scatter
from hemaml.report.study import Mark, Study
from hemaml.report.tables import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from plotly.graph_objects import Figure

COLOURS = (BLUE, ORANGE, "#9a62c9", "#b58a1b", GREY, "#c2577f", "#3aa3b8")
"""Of the lines, in order, mid-tones as in `figures`; green is the paper's."""
SYMBOLS = (("circle", "o"), ("square", "s"), ("triangle-up", "^"), ("diamond", "D"), ("cross", "P"))
"""Of the lines, in order, as Plotly and as Matplotlib call them."""
APART = 0.06
"""Share of the distance between two choices by which lines stand side by side."""
DOT = 9
"""Diameter of a mark that is no bubble, in pixels."""
PAPER = "the paper's, on its splits"


def draw_study(study: Study) -> "Figure":
    """The marks with their bars, the paper's beside them."""
    page = new_figure(study.word(study.figure.x), study.height, height=460)
    if study.choices:
        ends = [-0.5, len(study.choices) - 0.5]
        page.update_xaxes(
            tickvals=list(range(len(study.choices))), ticktext=study.ticks, range=ends
        )
    elif study.is_log:
        at = log_ticks(study.span)
        page.update_xaxes(type="log", tickvals=at, ticktext=[f"{value:,.9g}" for value in at])
    page.update_yaxes(automargin=True, title_standoff=14)
    across = _across(study)
    for index, (name, marks) in enumerate(study.series.items()):
        _add_line(page, study, index, name, [float(across[id(mark)]) for mark in marks])
    points = study.figure.paper
    if points:
        page.add_trace(
            scatter(0)(
                x=[study.place(point.x) for point in points], y=[point.y for point in points],
                text=[point.name for point in points], mode="markers+text", name=PAPER,
                textposition="bottom center", textfont={"color": GREEN, "size": 11},
                marker={"symbol": "diamond-open", "size": 11, "color": GREEN, "line_width": 2},
                cliponaxis=False, hoverinfo="text+x+y",
            )
        )  # fmt: skip
    return page


def log_ticks(span: tuple[float, float]) -> list[float]:
    """Values that are named along a logarithmic axis: powers of ten, with 2 and 5 where few."""
    low, high = (math.log10(end) for end in span)
    powers = range(math.floor(low), math.ceil(high) + 1)
    factors = (1, 2, 5) if high - low < 3 else (1,)
    return [factor * 10.0**power for power in powers for factor in factors]


def _across(study: Study) -> dict[int, float]:
    """Diameter of each mark, in pixels."""
    if not study.figure.size:
        return dict.fromkeys(map(id, study.marks), float(DOT))
    sizes = diameters(np.array([mark.size for mark in study.marks]))
    return {id(mark): float(size) for mark, size in zip(study.marks, sizes, strict=True)}


def _places(study: Study, index: int, marks: Sequence[Mark]) -> Float64Array:
    """Where the marks of a line stand: lines side by side between choices, so that bars show."""
    x = np.array([study.place(mark.x) for mark in marks], dtype=np.float64)
    return x + (index - (len(study.series) - 1) / 2) * APART if study.choices else x


def _told(study: Study, mark: Mark) -> str:
    """What is shown of a mark under the pointer."""
    lines = [mark.series] if mark.series else []
    lines.append(f"{study.word(study.figure.x)}: {number(mark.x)}")
    lines.append(f"{study.height}: {plus_minus(mark.y, mark.spread)}")
    if study.figure.size:
        lines.append(f"{study.word(study.figure.size)}: {number(mark.size)}")
    return "<br>".join([*lines, counted(mark.num, "trial")])


def _add_line(page: "Figure", study: Study, index: int, name: str, sizes: list[float]) -> None:
    marks, bubbles = study.series[name], bool(study.figure.size)
    colour = COLOURS[index % len(COLOURS)]
    kind = "markers+text" if bubbles else "lines+markers" if study.is_connected else "markers"
    style: dict[str, Any] = {"size": sizes, "color": colour, "opacity": 0.55 if bubbles else 1}
    if not bubbles:
        style["symbol"] = SYMBOLS[index % len(SYMBOLS)][0]
    page.add_trace(
        scatter(0)(
            x=_places(study, index, marks), y=np.array([mark.y for mark in marks]), mode=kind,
            name=name, showlegend=bool(name) and not bubbles, cliponaxis=False,
            text=[name for _ in marks] if bubbles else None, textposition="top center",
            hovertext=[_told(study, mark) for mark in marks], hoverinfo="text",
            line={"color": colour, "width": 2}, marker=style,
            error_y={"array": [mark.spread for mark in marks], "color": colour, "thickness": 1.5,
                     "width": 5, "visible": any(mark.num > 1 for mark in marks)},
        )
    )  # fmt: skip


MARGIN, HEAD, WIDTH, HEIGHT, LEFT, FOOT, LINE = 0.35, 0.62, 8.2, 4.0, 0.75, 0.6, 0.17
"""Inches: around the page, of its title, of the axes, of what stands left of and below them, and
of a line of the note."""
KEY, COLUMNS = 0.22, 3
"""Inches of a line of the key, and its entries."""
PER_LINE = 125
"""Characters in a line of the note."""


def study_png(study: Study) -> bytes:
    """The same on white, with title and note."""
    import textwrap

    lines = textwrap.wrap(study.note, PER_LINE)
    named = len(study.series) * (bool(study.figure.by) and not study.figure.size)
    named += bool(study.figure.paper)
    head = HEAD + LINE * len(lines) - 0.1 + KEY * -(-named // COLUMNS)
    page = new_page(2 * MARGIN + LEFT + WIDTH, 2 * MARGIN + head + HEIGHT + FOOT)
    write(page, MARGIN, MARGIN, study.figure.title, fontsize=14, fontweight="bold")
    write(page, MARGIN, MARGIN + 0.32, "\n".join(lines), color=MUTED)
    axes = axes_at(page, MARGIN + LEFT, MARGIN + head, WIDTH, HEIGHT)
    axes.grid(color=RULE, linewidth=0.5, alpha=0.7)
    axes.set_axisbelow(True)
    axes.spines[:].set(color=RULE, linewidth=0.8)
    axes.tick_params(length=0, labelcolor=INK)
    _plot(axes, study)
    axes.set_xlabel(study.word(study.figure.x), parse_math=False)
    axes.set_ylabel(study.height, parse_math=False)
    if named:
        axes.legend(frameon=False, fontsize=9, ncols=COLUMNS, loc="lower left", borderaxespad=0.2,
                    bbox_to_anchor=(0, 1), handletextpad=0.3)  # fmt: skip
    return to_png(page)


def _plot(axes: "Axes", study: Study) -> None:
    across, bubbles = _across(study), bool(study.figure.size)
    for index, (name, marks) in enumerate(study.series.items()):
        colour, x = COLOURS[index % len(COLOURS)], _places(study, index, marks)
        y, spread = [mark.y for mark in marks], [mark.spread for mark in marks]
        bars = spread if any(mark.num > 1 for mark in marks) else None
        axes.errorbar(x, y, bars, color=colour, capsize=3, linewidth=1.6, elinewidth=1.2,
                      linestyle="-" if study.is_connected else "none")  # fmt: skip
        area = [(across[id(mark)] * 0.75) ** 2 for mark in marks]  # points of 1/72 inch
        axes.scatter(x, y, area, color=colour, alpha=0.55 if bubbles else 1, zorder=3,
                     marker="o" if bubbles else SYMBOLS[index % len(SYMBOLS)][1],
                     label=None if bubbles or not name else name)  # fmt: skip
        for mark, left in zip(marks if bubbles else [], x, strict=False):
            above = (0, across[id(mark)] * 0.375 + 3)
            axes.annotate(name, (left, mark.y), above, textcoords="offset points", ha="center",
                          fontsize=9, parse_math=False)  # fmt: skip
    for point in study.figure.paper:
        axes.annotate(point.name, (study.place(point.x), point.y), (0, -14), color=GREEN,
                      textcoords="offset points", ha="center", fontsize=8)  # fmt: skip
    if points := study.figure.paper:
        axes.scatter([study.place(p.x) for p in points], [p.y for p in points], 55, marker="D",
                     facecolor="none", edgecolor=GREEN, linewidth=1.8, label=PAPER,
                     zorder=4)  # fmt: skip
    if study.choices:
        axes.set_xticks(range(len(study.choices)), study.ticks)
        axes.set_xlim(-0.5, len(study.choices) - 0.5)
    axes.margins(x=0.12 if bubbles else 0.05, y=0.15)
    if study.is_log:
        axes.set_xscale("log")
        ends = axes.get_xlim()
        at = [value for value in log_ticks(study.span) if ends[0] <= value <= ends[1]]
        axes.set_xticks(at, [f"{value:,.9g}" for value in at])
        axes.set_xticks([], minor=True)
