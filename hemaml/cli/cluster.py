"""`hemaml cluster`: what the nodes of a Ray cluster have."""

from typing import Annotated

import typer

from hemaml.cli.arguments import ExperimentPath, Sets
from hemaml.cli.show import print_table

app = typer.Typer(help="Check a Ray cluster before a sweep uses it.", no_args_is_help=True)


@app.callback()
def cluster() -> None:
    """Check a Ray cluster before a sweep uses it."""


@app.command("check")
def cluster_check(
    experiment: ExperimentPath,
    address: Annotated[
        str | None, typer.Option(help="auto, HOST:PORT or ray://HOST:PORT; default: this machine.")
    ] = None,
    set_: Sets = None,
) -> None:
    """Ask each node for its versions, the experiment's data, the stores, GPUs and the cache."""
    from hemaml.cluster import examine_cluster
    from hemaml.core.experiment import load_experiment

    findings = examine_cluster(load_experiment(experiment, set_ or []), address)
    rows = [[f.node, f.what, f.state, f.found] for f in findings]
    print_table(["node", "what", "state", "found"], rows)
    if any(f.state == "wrong" for f in findings):
        raise typer.Exit(1)
