"""The commands that put papers and laboratories to the test: `reproduce`, `transfer`."""

import sys
from typing import Annotated, Any

import typer

from hemaml.cli.arguments import Sets
from hemaml.cli.show import headline, print_table

app = typer.Typer()


@app.command()
def reproduce(
    table: Annotated[
        str | None, typer.Argument(help="As wbc-table-1, or a file. Default: lists them.")
    ] = None,
    rows: Annotated[
        str | None, typer.Option(metavar="ROW,ROW", help="Only these rows, by name.")
    ] = None,
    splits: Annotated[int | None, typer.Option(help="Outer splits a seed; default: 5.")] = None,
    seeds: Annotated[int, typer.Option(help="Of the splits: 0, 1, ...")] = 1,
    workers: Annotated[int, typer.Option(help="Processes side by side.")] = 1,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="[ROW:]KEY=VALUE",
            help="Override a key of all rows that have it, or of one; repeat.",
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List tables and their rows.")] = False,
) -> None:
    """Measure a paper's table again and show it beside the paper's figures."""
    import hemaml
    from hemaml.reproduce.page import footnotes, lines
    from hemaml.reproduce.table import find_table

    if table is None or list_:
        _list(table)
        return
    try:
        found = hemaml.reproduce(
            table,
            rows=[name.strip() for name in rows.split(",")] if rows else [],
            overrides=set_ or [],
            splits=splits,
            seeds=seeds,
            workers=workers,
            told=lambda row: print(f"{row.key}: {row.reason or 'measured'}", flush=True),
        )
    except KeyboardInterrupt:
        on = "takes all times anew" if find_table(table).table.timed else "goes on"
        print(f"interrupted; what is finished is kept. The same command {on}.", file=sys.stderr)
        raise typer.Exit(130) from None
    data = found.table.table
    heads, cells = lines(data, found.rows)
    print_table(heads, cells, title=f"\n{found.table.name}: {data.source}")
    for number, text in enumerate(footnotes(found.rows), 1):
        print(f"{number}  {text}")
    for remark in data.remarks:
        print(f"paper: {remark}")
    missing = [row for row in found.rows if row.reason]
    for row in missing:
        print(f"{row.label} was not measured: {row.reason}")
    print(f"the page: {found.page}")
    print(f"run {found.run_id}; look at it with `hemaml ui` at {found.link}")
    if missing:
        raise typer.Exit(1)


def _list(name: str | None) -> None:
    from hemaml.reproduce.table import find_table, table_files

    found = [find_table(name)] if name else table_files()
    cells = [
        [one.name, one.table.about, one.table.source, ", ".join(one.table.rows)] for one in found
    ]
    print_table(["table", "what", "paper", "rows"], cells)


@app.command()
def transfer(
    model: Annotated[
        str,
        typer.Argument(
            help="models:/name@alias, models:/name/version, runs:/id or the id; of an evaluation, "
            "the models of all its splits."
        ),
    ],
    data: Annotated[str, typer.Argument(help="An experiment file, or a reader, of other data.")],
    set_: Sets = None,
) -> None:
    """Score a recorded model on another data set, beside its scores on its own."""
    import hemaml
    from hemaml.cli.data import data_section
    from hemaml.notes import plus_minus, told

    found = hemaml.transfer(model, data_section(data, set_ or []))
    rows = [
        [
            name,
            plus_minus(*pair),
            told(found.intervals.get(name)),
            _known(found, name),
        ]
        for name, pair in headline(found.scores).items()
    ]
    heads = ["metric", f"on {found.target}", "95 % interval"]
    models = f"{found.num_models} models" if found.num_models > 1 else "one model"
    print_table(
        [*heads, f"on {found.source}, {found.source_part}"],
        rows,
        title=f"{found.model}: {models} of {found.source} on {found.num_images} images of "
        f"{found.target}",
    )
    print(f"run {found.run_id}; look at it with `hemaml ui` at {found.link}")


def _known(found: Any, name: str) -> str:
    """What is known of a score on the model's own data."""
    from hemaml.notes import plus_minus

    if name not in found.source_scores:
        return ""
    return plus_minus(*found.source_scores[name])
