"""The command `explain`."""

from pathlib import Path
from typing import Annotated

import typer

from hemaml.cli.show import print_table

app = typer.Typer()
MOST_PRINTED = 40
"""Rows; the rest is in the table that is written."""


@app.command()
def explain(
    model: Annotated[
        str, typer.Argument(help="models:/name@alias, models:/name/version, runs:/id or the id.")
    ],
    images: Annotated[list[Path], typer.Argument(help="Files, or folders of images.")],
    others: Annotated[
        list[str] | None, typer.Option("--with", metavar="MODEL", help="Compare; repeat.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="gradcam, gradcam++, layercam or eigencam.")
    ] = "gradcam++",
    layer: Annotated[
        str, typer.Option(help="The mapped stage: layer4, what the head averages, or a lower one.")
    ] = "layer4",
    target: Annotated[
        str | None, typer.Option(help="The class to map. Default: what a model says of an image.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="A new folder. Default: one in mlruns/explanations/.")
    ] = None,
) -> None:
    """Show where in images a model sees its class: heat maps, overlays and predictions."""
    import hemaml

    found = hemaml.explain_images(
        [model, *(others or [])], images, method=method, layer=layer, target=target, output=output
    )
    rows = [
        [one.image, one.model, one.said, *(f"{share:.1%}" for share in one.probabilities)]
        for one in found.predictions
    ]
    print_table(["image", "model", "class", *found.classes], rows[:MOST_PRINTED])
    if len(rows) > MOST_PRINTED:
        print(f"and {len(rows) - MOST_PRINTED} more, all in {found.table}")
    print(f"sheet: {found.sheet}")
    print(f"an overlay an image, and predictions.csv: {found.folder}")
