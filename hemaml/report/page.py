"""The page of a report: one HTML file that needs no network."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, get_args

from hemaml.data.splits import KIND_IN_WORDS, SplitKind
from hemaml.notes import counted
from hemaml.report.figures import bubbles, history, learning_curves, trade_off
from hemaml.report.gather import Swept
from hemaml.report.parameters import contours, importance, parallel_coordinates, slices
from hemaml.report.study import Study, studies, study_table, sweep_tables
from hemaml.report.study_figure import draw_study
from hemaml.report.tables import Table, mean_and_spread

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

WIDE = 48
"""Characters from which a cell may break into lines."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure with its caption.

    Attributes:
        title: What it shows.
        note: How to read it.
        figure: The figure.
    """

    title: str
    note: str
    figure: "Figure"


@dataclass(frozen=True, slots=True)
class Group:
    """Sweeps whose winners may stand in one table: of one task, data set, label set and goal.

    Attributes:
        sweeps: The latest first.
        tables: Over all of them.
    """

    sweeps: Sequence[Swept]
    tables: Sequence[Table]


def render(title: str, groups: Sequence[Group]) -> str:
    """The whole page.

    Args:
        title: Its heading.
        groups: What it compares, then shows one by one.
    """
    page = _Page()
    body = "".join(page.group(group) for group in groups)
    return page.document(title, f"{_printed_at(groups)}</header><nav>{page.links()}</nav>", body)


def study_page(sweep: Swept, study: Study) -> str:
    """A page of one figure that an experiment asks for, with its table.

    Args:
        sweep: Whose trials it shows.
        study: The figure.
    """
    page = _Page()
    question, name = escape(str(sweep.document["question"])), escape(sweep.name)
    asked = f'<p class="question">{question}</p><p class="muted">{name}</p>'
    table = replace(study_table(study), title="In numbers", note="")
    body = page.figure(Drawn("", study.note, draw_study(study))) + table_html(table)
    return page.document(study.figure.title, f"{asked}</header>", body)


class _Page:
    """Collects figures and headings while the body is written."""

    def __init__(self) -> None:
        self._figures: list[str] = []
        self._headings: list[tuple[str, str]] = []

    def document(self, title: str, head: str, body: str) -> str:
        """The whole page.

        Args:
            title: Its heading.
            head: What follows the heading, its closing tag included.
            body: All else, written by this page's methods.
        """
        return (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}'
            '</title><meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<style>{asset('page.css')}</style></head><body>"
            f"<header><h1>{escape(title)}</h1>{head}<main>{body}</main>"
            "<footer>hemaml. Research software, not for diagnosis. Scores of a search are on "
            "validation; the held-out part is scored by <code>hemaml promote</code> alone.</footer>"
            f"{self.data()}<script>{_plotly()}</script><script>{asset('page.js')}</script>"
            "</body></html>\n"
        )

    def group(self, group: Group) -> str:
        """The comparison of a group, then each of its sweeps."""
        first = group.sweeps[0]
        name = f"{first.task} on {first.record.tags['data']}"
        parts = [self._heading(name)]
        parts += [table_html(table) for table in group.tables]
        if (drawn := bubbles(group.sweeps)) is not None:
            told = (
                "Each winner; the radius grows with the logarithm of the number of parameters, "
                "as in Figure 9 of Jiang et al. 2024."
            )
            parts.append(self.figure(Drawn("Score against size", told, drawn)))
        parts += [self._sweep(sweep) for sweep in group.sweeps]
        return "".join(parts)

    def _sweep(self, sweep: Swept) -> str:
        texts = [table_html(table) for table in sweep_tables(sweep)]
        drawn = [self.figure(figure) for figure in sweep_figures(sweep)]
        return (
            f'<section class="sweep">{self._heading(sweep.name)}'
            f'<p class="question">{escape(str(sweep.document["question"]))}</p>'
            f"{_chips(sweep)}{_facts(sweep)}{''.join(texts)}{''.join(drawn)}</section>"
        )

    def _heading(self, text: str) -> str:
        anchor = f"s{len(self._headings)}"
        self._headings.append((anchor, text))
        return f'<h2 id="{anchor}">{escape(text)}</h2>'

    def figure(self, drawn: Drawn) -> str:
        """A figure with its caption, drawn by the page's script."""
        name = f"figure-{len(self._figures)}"
        text = drawn.figure.to_json().replace("</", "<\\/")
        self._figures.append(f'<script type="application/json" id="{name}">{text}</script>')
        height = drawn.figure.layout.height
        return (
            f"<figure><figcaption>{escape(drawn.title)}<span>{escape(drawn.note)}</span>"
            f'</figcaption><div class="plot" data-figure="{name}" style="min-height:{height}px">'
            "</div></figure>"
        )

    def links(self) -> str:
        """Links to all headings."""
        return "".join(f'<a href="#{anchor}">{escape(text)}</a>' for anchor, text in self._headings)

    def data(self) -> str:
        """The figures as data, which the script draws."""
        return "".join(self._figures)


def drawn_study(study: Study) -> Drawn:
    """A figure that an experiment asks for."""
    return Drawn(study.figure.title, study.note, draw_study(study))


def sweep_figures(sweep: Swept) -> Iterator[Drawn]:
    """All figures that a sweep has enough trials for."""
    yield from map(drawn_study, studies(sweep))
    found: list[tuple[str, str, Figure | None]] = [
        ("Optimisation history", "Pruned trials stand at their last validation.", history(sweep)),
        ("Score against size" if len(sweep.goals) == 1 else "Goal against goal",
         "On the front, no other trial is better in both.", trade_off(sweep)),
        ("Parallel coordinates",
         "One line a finished trial. Drag along an axis to keep a part of the trials.",
         parallel_coordinates(sweep)),
        ("Importance",
         "Share of what made the best tenth of the trials, five at least (PED-ANOVA), with 95 % "
         "intervals over resampled trials. Wide ones: too few trials to tell.", importance(sweep)),
        ("Slices", "Each parameter alone; later trials are darker.", slices(sweep)),
        ("Contours",
         "Mean score near each pair of values, for the parameters that matter most; blank where no "
         "trial is near.", contours(sweep)),
        ("Learning curves", "Pruned and failed trials are faint; of many trials a sample.",
         learning_curves(sweep)),
    ]  # fmt: skip
    for title, note, figure in found:
        if figure is not None:
            yield Drawn(title, note, figure)


def table_html(table: Table) -> str:
    """A table of a report."""
    head = "".join(f"<th{_kind(table, name)}>{escape(name)}</th>" for name in table.columns)
    rows = []
    for index, row in enumerate(table.rows):
        cells = [escape(cell) for cell in row]
        if index in table.links:
            cells[0] = f'<a href="{escape(table.links[index])}" target="_blank">{cells[0]}</a>'
        texts = [
            f"<td{_kind(table, name, raw)}>{cell}</td>"
            for name, raw, cell in zip(table.columns, row, cells, strict=True)
        ]
        best = ' class="best"' if index == table.best else ""
        rows.append(f"<tr{best}>{''.join(texts)}</tr>")
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<h3>{escape(table.title)}</h3><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{note}"
    )


def _kind(table: Table, column: str, cell: str = "") -> str:
    kinds = ["text"] if column in table.texts else []
    kinds += ["long"] if len(cell) > WIDE else []
    return f' class="{" ".join(kinds)}"' if kinds else ""


def _chips(sweep: Swept) -> str:
    """What the sweep was, in short; a leaky split and uncommitted code stand out."""
    tags = sweep.record.tags
    kind: Mapping[str, str] = {k: KIND_IN_WORDS[k] for k in get_args(SplitKind)}
    plain = {
        "state": tags.get("outcome", ""), "objective": tags["objective"],
        "data": f"{tags['data']} {tags['data_digest'][:8]}", "engine": tags["engine"],
        "sampler": tags["sampler"], "pruner": tags["pruner"],
        "code": tags.get("mlflow.source.git.commit", "")[:10] or "no repository",
    }  # fmt: skip
    items = [f"<li>{name} <b>{escape(value)}</b></li>" for name, value in plain.items()]
    split = escape(kind.get(tags["split.kind"], tags["split.kind"]))
    warn = ' class="warn"' if tags["split.leaky"] == "true" else ""
    items.append(f"<li{warn}>{split}</li>")
    if tags.get("git.dirty") == "true":
        items.append('<li class="warn">uncommitted changes</li>')
    if tags.get("unconfirmed"):
        items.append(f'<li class="warn">unconfirmed: {escape(tags["unconfirmed"])}</li>')
    page = escape(sweep.page(sweep.record.id))
    items.append(f'<li><a href="{page}" target="_blank">its run in MLflow</a></li>')
    return f'<ul class="chips">{"".join(items)}</ul>'


def _facts(sweep: Swept) -> str:
    metrics, goal = sweep.record.metrics, sweep.goal.metric
    seeds = counted(len(sweep.seeds), "seed")
    facts = [
        (mean_and_spread(metrics, goal), f"{goal}, winner over {seeds}"),
        (f"{metrics['params_total']:,.0f}" if "params_total" in metrics else "–", "parameters"),
        (f"{metrics['ms_per_image']:.1f} ms" if "ms_per_image" in metrics else "–",
         "an image, one at a time on CPU"),
        (f"{len(sweep.finished)} of {len(sweep.trials)}", "trials finished"),
        (f"{sweep.hours:.2f} h", f"of training, {sweep.gpu_hours:.2f} h on GPU"),
    ]  # fmt: skip
    cells = [
        f'<div class="fact"><b>{escape(v)}</b><span>{escape(n)}</span></div>' for v, n in facts
    ]
    return f'<div class="facts">{"".join(cells)}</div>'


def _printed_at(groups: Sequence[Group]) -> str:
    num = sum(len(group.sweeps) for group in groups)
    when = time.strftime("%Y-%m-%d %H:%M")
    return f'<p class="muted">{counted(num, "sweep")}, as recorded on {when}.</p>'


def asset(name: str) -> str:
    """A text file of this package."""
    return files("hemaml.report").joinpath(name).read_text(encoding="utf-8")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())
