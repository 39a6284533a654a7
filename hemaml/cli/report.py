"""The command `report`."""

from pathlib import Path
from typing import Annotated

import typer

from hemaml.cli.show import print_table

app = typer.Typer()


@app.command()
def report(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SWEEP|EXPERIMENT|TASK]...",
            help="Ids of sweeps, experiments (file or name) or tasks. Default: all sweeps.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The page. Default: a file in mlruns/reports/.")
    ] = None,
) -> None:
    """Compare sweeps: tables here, and one page with all figures that works offline."""
    import hemaml

    written = hemaml.report(*names or [], output=output)
    for table in written.tables:
        print_table(list(table.columns), [list(row) for row in table.rows], title=table.title)
        print(f"{table.note}\n" if table.note else "")
    print(f"the page: {written.path}")
    if written.link:
        print(f"it is an artifact of the sweep's run too: `hemaml ui`, then {written.link}")
