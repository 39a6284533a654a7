"""The table for people: lines for the terminal, Markdown, CSV, and one HTML page."""

import csv
import io
import math
import time
from collections.abc import Mapping, Sequence
from html import escape

from hemaml.core.markdown import markdown_table
from hemaml.data.splits import KIND_IN_WORDS
from hemaml.notes import counted, plus_minus
from hemaml.report.page import asset
from hemaml.report.tables import DASH
from hemaml.reproduce.result import Measured
from hemaml.reproduce.table import SIZE, SIZES, PaperTable, TableFile

TIMES = "seconds/"
HEADS = {
    SIZE: "parameters",
    "segmenter_params": "parameters of the segmenter",
    "mask_dice": "Dice of its masks",
    "clean_up": "clean-up",
    "cpu": "CPU",
    "gpu": "GPU",
    "ppv": "PPV",
    "f1": "F1",
    "auc": "AUC",
}
"""Metrics that are not called as they are read."""


def head(metric: str) -> str:
    """What a column is called; `recall/monocyte` is `recall monocyte`."""
    called = " ".join(HEADS.get(name, name.replace("_", " ")) for name in metric.split("/"))
    return f"{called}, x the first row's" if metric.startswith(TIMES) else called


def columns(table: PaperTable, rows: Sequence[Measured]) -> list[str]:
    """The metrics of a table, less those of a GPU that neither the paper nor we have."""
    found = {name for row in rows for name in (*row.paper, *row.scores)}
    return [name for name in table.metrics if name in found or not name.endswith("/gpu")]


def footnotes(rows: Sequence[Measured]) -> list[str]:
    """What differs from the paper, each difference once, in order; its place is its mark."""
    told = [text for row in rows for text in row.differences]
    told += [KIND_IN_WORDS[row.split_kind] for row in rows if row.split_kind == "leaky"]
    return list(dict.fromkeys(told))


def marks(row: Measured, notes: Sequence[str]) -> str:
    """The numbers of a row's footnotes, as `1 2`."""
    own = [*row.differences, KIND_IN_WORDS[row.split_kind] if row.split_kind == "leaky" else ""]
    return " ".join(str(number) for number, text in enumerate(notes, 1) if text in own)


def parts(row: Measured) -> str:
    """Over what a mean is, as `5 splits`, `2 seeds x 5 splits` or `3 passes`."""
    if row.passes:
        return f"{row.passes} passes"
    splits = counted(row.splits, "split")
    return splits if row.seeds == 1 else f"{row.seeds} seeds x {splits}"


def paper_text(row: Measured, metric: str) -> str:
    """The paper's figure, or a dash."""
    if metric not in row.paper:
        return DASH
    figure = row.paper[metric]
    first = row.first.paper if row.first else {}
    return _number(metric, figure) + _multiple(figure, metric, first)


def our_text(row: Measured, metric: str) -> str:
    """Ours with its deviation, or a dash."""
    if metric not in row.scores:
        return DASH
    mean, deviation = row.scores[metric]
    if metric in SIZES:
        return _number(metric, mean)
    first = {name: pair[0] for name, pair in row.first.scores.items()} if row.first else {}
    return plus_minus(mean, deviation) + _multiple(mean, metric, first)


def difference_text(row: Measured, metric: str) -> str:
    """Ours less the paper's, with its sign; of sizes, how many times as many."""
    found = row.difference(metric)
    if found is None:
        return DASH
    if metric in SIZES:
        return f"x {row.scores[metric][0] / row.paper[metric]:.2f}"
    return f"{found:+.4f}"


def _multiple(value: float, metric: str, of: Mapping[str, float]) -> str:
    """A time as how many times another row's, after it; nothing of what is no time."""
    if not metric.startswith(TIMES) or metric not in of:
        return ""
    return f", x {value / of[metric]:.3g}"


def _number(metric: str, value: float) -> str:
    return f"{value:,.0f}" if metric in SIZES else f"{value:.4f}"


def lines(table: PaperTable, rows: Sequence[Measured]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells for the terminal: of each row the paper's figures, ours, the difference."""
    notes, metrics, cells = footnotes(rows), columns(table, rows), []
    for row in rows:
        cells.append([row.label, "paper", *(paper_text(row, m) for m in metrics), ""])
        if row.reason:
            cells.append(["", "not measured", *(DASH for _ in metrics), ""])
            continue
        ours = [our_text(row, m) for m in metrics]
        cells.append(["", f"ours, {parts(row)}", *ours, marks(row, notes)])
        if not row.passes:  # of another device
            cells.append(["", "difference", *(difference_text(row, m) for m in metrics), ""])
    return ["", "", *map(head, metrics), "note"], cells


def note(found: TableFile, rows: Sequence[Measured]) -> str:
    """The table as the description of its run, in Markdown."""
    heads, cells = lines(found.table, rows)
    notes = [f"{number}. {text}" for number, text in enumerate(footnotes(rows), 1)]
    missing = [f"- **{row.label}** was not measured: {row.reason}" for row in rows if row.reason]
    links = [
        f"- {row.label}: " + ", ".join(f"[{parts(row)}]({_inside(link)})" for link in row.links)
        for row in rows
        if row.links
    ]
    blocks = [
        [f"**{found.table.about}** Paper: {found.table.source}."],
        markdown_table(heads, cells),
        ["Measured otherwise than in the paper:", "", *notes] if notes else [],
        missing,
        [f"- {remark}" for remark in found.table.remarks],
        ["The evaluations:", "", *links] if links else [],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _inside(link: str) -> str:
    """The address within the UI, wherever it is served."""
    return link[link.index("#") :]


def as_csv(table: PaperTable, rows: Sequence[Measured]) -> str:
    """One line a row and metric."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["row", "metric", "paper", "mean", "deviation", "low", "high", "splits",
                     "seeds", "passes", "split", "differences", "reason"])  # fmt: skip
    for row in rows:
        for metric in table.metrics:
            ours = row.scores.get(metric, (math.nan, math.nan))
            low, high = row.intervals.get(metric, ("", ""))
            writer.writerow(
                [
                    row.key,
                    metric,
                    row.paper.get(metric, ""),
                    *("" if math.isnan(value) else value for value in ours),
                    low,
                    high,
                    row.splits or "",
                    row.seeds or "",
                    row.passes or "",
                    row.split_kind if row.splits else "",
                    "; ".join(row.differences),
                    row.reason,
                ]
            )
    return file.getvalue()


def render(
    found: TableFile, rows: Sequence[Measured], asked: Mapping[str, object], link: str
) -> str:
    """The page: self-contained, without scripts.

    Args:
        found: The table.
        rows: What was found.
        asked: What the command was told, shown as it is.
        link: The page of its run in the MLflow UI.
    """
    table, title = found.table, found.name
    done = sum(not row.reason for row in rows)
    chips = [f"<li>{name} <b>{escape(_plain(value))}</b></li>" for name, value in asked.items()
             if name != "rows" and value != []]  # fmt: skip
    state = "" if done == len(rows) else ' class="warn"'
    beside = "Its splits are others: a neighbour, not a rival."
    over = "the test parts of the outer splits, each scored once"
    if table.timed:
        beside = "Its device is another: what compares is x, the multiple of the first row's time."
        over = "passes over the same images"
    chips.insert(0, f"<li{state}>measured <b>{done} of {len(rows)} rows</b></li>")
    chips.append(f'<li><a href="{escape(link)}" target="_blank">its run in MLflow</a></li>')
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}'
        '</title><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{asset('page.css')}</style></head><body><header><h1>{escape(title)}</h1>"
        f'<p class="question">{escape(table.about)}</p>'
        f'<p class="muted">Paper: {escape(table.source)}. {beside} As measured on '
        f"{time.strftime('%Y-%m-%d %H:%M')}.</p>"
        f'<ul class="chips">{"".join(chips)}</ul></header><main>{_table(table, rows)}'
        f"{_below(table, rows)}</main><footer>hemaml. Research software, not for diagnosis. Mean ± "
        f"deviation over {over}.</footer></body></html>\n"
    )


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _table(table: PaperTable, rows: Sequence[Measured]) -> str:
    metrics, notes = columns(table, rows), footnotes(rows)
    heads = "".join(f"<th>{escape(head(metric))}</th>" for metric in metrics)
    body = "".join(_row(metrics, row, marks(row, notes)) for row in rows)
    return (
        '<div class="scroll"><table class="versus"><thead><tr><th class="text">model</th>'
        f"{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(metrics: Sequence[str], row: Measured, own_marks: str) -> str:
    label = escape(row.label)
    if row.links:
        label = f'<a href="{escape(row.links[0])}" target="_blank">{label}</a>'
    raised = f"<sup>{own_marks.replace(' ', ', ')}</sup>" if own_marks else ""
    over = "not measured" if row.reason else parts(row)
    cells = []
    for metric in metrics:
        mean, _, spread = our_text(row, metric).partition(" ± ")
        deviation = f"<i> ± {spread}</i>" if spread else ""
        beside = ""
        if metric in row.paper:
            both = [f"paper {paper_text(row, metric)}"]
            compared = metric in row.scores and not row.passes
            both += [difference_text(row, metric)] if compared else []
            beside = f"<span>{', '.join(both)}</span>"
        cells.append(f"<td><b>{mean}</b>{deviation}{beside}</td>")
    style = ' class="absent"' if row.reason else ""
    return f'<tr{style}><td class="text"><b>{label}</b>{raised}<span>{over}</span></td>' + (
        f"{''.join(cells)}</tr>"
    )


def _below(table: PaperTable, rows: Sequence[Measured]) -> str:
    """Footnotes, what is missing, and remarks on the paper."""
    made = []
    if notes := footnotes(rows):
        items = "".join(f"<li>{escape(text)}</li>" for text in notes)
        made.append(f"<h3>Measured otherwise than in the paper</h3><ol>{items}</ol>")
    if missing := [row for row in rows if row.reason]:
        items = "".join(
            f"<li><b>{escape(row.label)}</b>: {escape(row.reason)}</li>" for row in missing
        )
        made.append(f'<h3>Not measured</h3><ul class="reasons">{items}</ul>')
    if table.remarks:
        items = "".join(f"<li>{escape(text)}</li>" for text in table.remarks)
        made.append(f"<h3>On the paper</h3><ul>{items}</ul>")
    return "".join(made)
