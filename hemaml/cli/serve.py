"""The command `serve`."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from hemaml.cli.arguments import Sets

app = typer.Typer()


@app.command()
def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Names, models:/name@alias or models:/name/version. Default: all."),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Default: 8000.")] = None,
    host: Annotated[str | None, typer.Option(help="Loopback unless you ask otherwise.")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="A file with the token that clients must send.")
    ] = None,
    open_: Annotated[
        bool | None, typer.Option("--open", help="Let other machines ask without a token.")
    ] = None,
    set_: Sets = None,
) -> None:
    """Answer for images by the champions, to programs and on a page; research, not diagnosis."""
    from hemaml.serve.server import start
    from hemaml.serve.settings import serve_settings

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("hemaml").setLevel(logging.INFO)
    options = {"models": models or None, "port": port, "host": host, "open": open_}
    running = start(serve_settings(options, set_ or [], token_file))
    for served in running.champions.all():
        print(f"{served.facts.name}: {served.facts.uri} ({served.facts.objective})")
    if not running.champions.all():
        print("no champion yet; it answers once one is promoted: hemaml promote MODEL")
    print(f"open {running.address} (Ctrl-C ends it)", flush=True)
    running.run()
