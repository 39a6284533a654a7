"""Commands on what has been recorded: `ui`, `doctor`."""

import errno
import os
import socket
import sys
from typing import Annotated

import typer

from hemaml.cli.show import print_table
from hemaml.core.errors import ConfigError

app = typer.Typer()
UI_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # what is looked at here is nobody else's business
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes that nothing here needs
}
"""Of the server, unless the environment says otherwise."""


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Of the server.")] = 5000,
    host: Annotated[str, typer.Option(help="Loopback unless you ask otherwise.")] = "127.0.0.1",
    only_links: Annotated[
        bool, typer.Option("--links", help="Print the links only, for a server that runs already.")
    ] = False,
) -> None:
    """Start the MLflow UI on the store in use, and print links into it."""
    from hemaml.core import settings
    from hemaml.overview import links
    from hemaml.tracking.views import ui_address

    uri = settings.tracking_uri()
    address = ui_address(uri, host, port)
    served = uri.startswith("http")
    if not (served or only_links):
        check_port(host, port)
    for place in links():
        print(place.name)
        for name, page in place.pages.items():
            print(f"  {name}: {address}/{page}")
    if served or only_links:
        print(f"the store is a server; open {address}" if served else f"served at {address}")
        return
    print(f"open {address} (Ctrl-C ends it)", flush=True)
    command = [sys.executable, "-W", "ignore", "-m", "mlflow", "server"]
    options = ["--host", host, "--port", str(port), "--workers", "1"]
    # The URI may hold a password: not on the command line.
    environment = UI_SETTINGS | os.environ | {"MLFLOW_BACKEND_STORE_URI": uri}
    os.execve(sys.executable, [*command, *options], environment)


def check_port(host: str, port: int) -> None:
    """Raises `ConfigError` where another program listens; names a port that is free."""
    if _is_free(host, port):
        return
    free = next((other for other in range(port + 1, port + 100) if _is_free(host, other)), 0)
    raise ConfigError(
        f"the port of the UI must be free, but something listens at {host}:{port}. If that is this "
        f"UI, `hemaml ui --links --port {port}` prints the links; else `hemaml ui --port {free}`."
    )


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


@app.command()
def doctor(
    sweep_id: Annotated[str | None, typer.Option("--sweep", help="Check this sweep.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended.")] = False,
) -> None:
    """Check stores, cache, device, data and runs; or that a sweep's study and record agree."""
    from hemaml.doctor import examine, examine_sweep

    findings = examine_sweep(sweep_id, repair=repair) if sweep_id else examine(repair=repair)
    print_table(["what", "state", "found"], [[f.what, f.state, f.found] for f in findings])
    if any(f.state == "wrong" for f in findings):
        raise typer.Exit(1)
