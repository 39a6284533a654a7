"""The command line: parse, call, print. Everything here can be done from Python as well."""

import gc
import signal
import sys

import typer

from hemaml.cli import (
    access,
    cache,
    cluster,
    data,
    explain,
    keeping,
    models,
    report,
    reproduce,
    search,
    serve,
    stores,
)
from hemaml.core.errors import HemamlError

app = typer.Typer(
    help="Launch sweeps, compare them in MLflow, promote the winner.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for commands in (search, reproduce, report, models, explain, serve, stores, access, keeping):
    app.add_typer(commands.app)
app.add_typer(data.app, name="data")
app.add_typer(cache.app, name="cache")
app.add_typer(cluster.app, name="cluster")
app.add_typer(access.users, name="user")


def main() -> None:
    """Runs the command line; users' errors are printed without a traceback."""
    gc.set_threshold(10_000, 10, 10)  # at Python's 700, a fifth of the start is garbage collection
    # A batch system or `docker stop` ends a job by SIGTERM: it ends as cleanly as by Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except HemamlError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
