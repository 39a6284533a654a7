"""What commands print: tables and scores."""

import sys
from collections.abc import Mapping
from typing import Any


def print_table(columns: list[str], rows: list[list[str]], title: str = "") -> None:
    """A rich table on a terminal; tab-free aligned text elsewhere, never cut."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=None, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    width = None if sys.stdout.isatty() else 160
    Console(width=width, markup=False, highlight=False).print(table)


def print_scores(
    title: str,
    scores: Mapping[str, tuple[float, float]],
    paper: Mapping[str, str | float],
    intervals: Mapping[str, tuple[float, float]] | None = None,
) -> None:
    """Mean and deviation, with intervals and beside the paper's figures where there are any."""
    from hemaml.notes import told

    columns = ["metric", "mean", "deviation"]
    columns += ["95 % interval"] if intervals else []
    columns += ["paper"] if paper else []
    rows = [
        [
            name,
            figure(mean),
            figure(deviation),
            *([told(intervals.get(name))] if intervals else []),
            *([str(paper.get(name, ""))] if paper else []),
        ]
        for name, (mean, deviation) in headline(scores).items()
    ]
    if rows:
        print_table(columns, rows, title=title)
    if source := paper.get("source"):
        print(f"paper: {source}; its splits are others")


def headline(metrics: Any) -> dict[str, Any]:
    """The scores, those of other views of a model (`mlp/auc`) included, less those of one class."""
    from hemaml.lockstep import is_curve

    whole = {name for name in metrics if "/" not in name}
    return {
        name: value
        for name, value in sorted(metrics.items(), key=lambda item: ("/" in item[0], item[0]))
        if name in whole or (name.rpartition("/")[2] in whole and not is_curve(name))
    }


def figure(value: float) -> str:
    """A score with four decimals, a count or a size without any; nothing of what is undefined."""
    if value != value:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}"


def cell(value: object) -> str:
    """A value as a table shows it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
