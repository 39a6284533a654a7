"""Commands on what has been recorded: `ui`, `doctor`."""

import os
import sys
from typing import Annotated

import typer

from hemaml.cli.show import print_table

app = typer.Typer()


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Of the server.")] = 5000,
    host: Annotated[str, typer.Option(help="Loopback unless you ask otherwise.")] = "127.0.0.1",
) -> None:
    """Start the MLflow UI on the store in use."""
    from hemaml.core import settings
    from hemaml.record import sweep_records
    from hemaml.tracking.views import ui_address

    uri = settings.tracking_uri()
    address = ui_address(uri, host, port)
    for record in sweep_records()[-5:]:
        print(f"{record.name} ({record.tags['outcome']}): {address}/{record.tags['view']}")
    if uri.startswith("http"):
        print(f"the store is a server; open {address}")
        return
    print(f"open {address} (Ctrl-C ends it)", flush=True)
    command = [sys.executable, "-W", "ignore", "-m", "mlflow", "server"]
    options = ["--host", host, "--port", str(port), "--workers", "1"]
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": uri}  # it may hold a password
    os.execve(sys.executable, [*command, *options], environment)


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
