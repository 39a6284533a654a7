"""Tables in Markdown, as the MLflow UI shows them."""

from collections.abc import Iterable, Sequence

SPACE = "&nbsp;" * 4
"""Behind each cell: the UI puts none between columns, and takes away what is mere space."""


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a table; all cells to the left, since the UI has no other way."""
    lines = [_line(heads), "|" + " --- |" * len(heads)]
    return lines + [_line([str(cell) for cell in row]) for row in rows]


def _line(cells: Sequence[str]) -> str:
    texts = [" ".join(cell.split()).replace("|", "\\|") for cell in cells]
    padded = [f"{text}{SPACE}" if text else "" for text in texts[:-1]]
    return "| " + " | ".join([*padded, texts[-1]]) + " |"
