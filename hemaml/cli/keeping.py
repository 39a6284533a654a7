"""Commands that keep what has been recorded: `backup`, `restore`."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()
Kept = Annotated[
    str | None,
    typer.Option(
        "--artifacts",
        help="Where the MLflow server keeps artifacts, a folder or s3://...; default: through it.",
    ),
]


@app.command()
def backup(
    folder: Annotated[Path, typer.Argument(help="Absent or empty.")],
    kept: Kept = None,
) -> None:
    """Back up record, studies and artifacts of the stores in use, while sweeps run."""
    from hemaml.backup import backup as back_up

    began = time.monotonic()
    manifest = back_up(folder, kept=kept)
    for part in manifest.parts:
        print(f"{part.role}: {_counted(part.counts)}")
    print(
        f"{folder}: {len(manifest.files)} files, {manifest.size / 1e6:.1f} MB in "
        f"{time.monotonic() - began:.1f} s; bring it back by `hemaml restore {folder}`"
    )


@app.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="A backup.")],
    replace: Annotated[
        Path | None,
        typer.Option(help="Back up what the stores have into this folder, then replace it."),
    ] = None,
    kept: Kept = None,
) -> None:
    """Bring a backup back into the stores in use, which must be empty."""
    from hemaml.backup.restore import restore as bring_back

    began = time.monotonic()
    restored = bring_back(folder, replace=replace, kept=kept)
    for part in restored.manifest.parts:
        print(f"{part.role}: {_counted(part.counts)}")
    print(f"restored as of {restored.manifest.made} in {time.monotonic() - began:.1f} s")
    if restored.outdated:
        print("its tables are older than the installed MLflow's: `hemaml upgrade` is next")
    print("`hemaml doctor` says whether all is sound; `--sweep ID --repair` ends what a sweep left")


TOLD = ("runs", "metrics", "registered_models", "model_versions", "studies", "trials", "users")


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[name]} {name}" for name in TOLD if name in counts) or "empty"


@app.command()
def migrate(
    folder: Annotated[
        Path | None, typer.Argument(help="The embedded store; default: mlruns of this folder.")
    ] = None,
    kept: Kept = None,
) -> None:
    """Move an embedded store into the server that the settings name; it stays as it is."""
    from hemaml.migrate import migrate as move

    began = time.monotonic()
    moved = move(folder, kept=kept)
    print(_counted(moved.counts))
    for name, (old, new) in moved.renumbered.items():
        print(f"experiment {name}: {old} here is {new} on the server")
    print(f"moved in {time.monotonic() - began:.1f} s; `hemaml doctor` looks at what has arrived")


@app.command()
def upgrade(
    folder: Annotated[
        Path | None,
        typer.Option("--backup", help="Where the backup goes; default: mlruns/backups/..."),
    ] = None,
) -> None:
    """Back up the databases in use, then upgrade their tables to the installed versions."""
    from hemaml.upgrade import upgrade as bring_up

    upgraded = bring_up(folder)
    for role, (old, new) in upgraded.changes.items():
        print(f"{role}: tables of {old} are now of {new}")
    if upgraded.backup is None:
        print("all tables are of the installed versions: nothing to upgrade")
    else:
        print(f"as they were: {upgraded.backup}")
