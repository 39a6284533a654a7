"""Commands on registered models: `promote`, `models`, `rollback`, `history`."""

import time
from typing import Annotated, Any

import typer

from hemaml.cli.show import print_table

app = typer.Typer()

Name = Annotated[str, typer.Argument(help="Registered model, by default the task's name.")]
DAY_S = 86400


@app.command()
def promote(
    name: Name,
    sweep_id: Annotated[str | None, typer.Option("--sweep", help="Its winner.")] = None,
    run_id: Annotated[str | None, typer.Option("--run", help="This run's model.")] = None,
    version: Annotated[int | None, typer.Option(help="A version's number.")] = None,
    challenger: Annotated[
        bool, typer.Option("--challenger", help="Move that alias, without beating the champion.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Judge and move nothing; a look all the same.")
    ] = False,
    force: Annotated[
        str | None, typer.Option(metavar="REASON", help="Overrule the gates; recorded.")
    ] = None,
) -> None:
    """Score candidate and champion on the held-out part; move the alias if every gate holds."""
    import hemaml

    found = hemaml.promote(
        name,
        version=version,
        sweep=sweep_id,
        run=run_id,
        alias="challenger" if challenger else "champion",
        dry_run=dry_run,
        force=force,
    )
    _print_verdict(found, forced=force is not None)
    if not found.passed:
        raise typer.Exit(1)


def _print_verdict(found: Any, *, forced: bool) -> None:
    against = found.champion.uri if found.champion else "no champion"
    rows = [[c.rule, _state(c), c.found] for c in found.verdict.checks]
    print_table(["check", "", "found"], rows, title=f"{found.version.uri} against {against}")
    primary = {name: c for name, c in found.comparisons.items() if c.within_noise}
    for name, comparison in primary.items():
        print(f"{name}: the difference of {comparison.difference:+.4f} is within noise")
    print(f"look {found.look} at these {found.num_images} held-out images")
    kept = f"{against} stays" if found.champion else "no alias has moved"
    told = {
        "promoted": f"promoted: {found.version.uri} is {found.alias}",
        "forced": f"FORCED: {found.version.uri} is {found.alias}; the reason is on record",
        "would_pass": f"every gate holds; a dry run, so {kept}",
        "refused": f"refused: {kept}",
    }
    print(told[found.outcome])
    if forced and found.outcome == "refused" and not found.verdict.forceable:
        rules = [c.rule for c in found.verdict.failed if not c.forceable]
        print(f"cannot be forced, as nothing could be compared: {'; '.join(rules)}")
    print(f"look at it with `hemaml ui` at {found.link}")


def _state(check: Any) -> str:
    if check.passed:
        return "ok"
    return "FAILED" if check.required else "no (told only)"


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="Default: all registered models.")] = None,
) -> None:
    """Versions of the registered models, with aliases, scores and age."""
    import hemaml

    rows = [
        [
            version.uri.removeprefix("models:/"),
            ", ".join(version.aliases),
            version.tags.get("objective", ""),
            version.tags.get("data", ""),
            _scores(version.tags, "val."),
            _scores(version.tags, "held_out."),
            _age(version.created_ms),
        ]
        for version in hemaml.models(name)
    ]
    columns = ["version", "aliases", "objective", "data", "validation", "held-out", "age"]
    print_table(columns, rows)


def _scores(tags: Any, prefix: str) -> str:
    found = {key: value for key, value in sorted(tags.items()) if key.startswith(prefix)}
    return ", ".join(f"{key.removeprefix(prefix)} {value}" for key, value in found.items())


def _age(created_ms: int) -> str:
    seconds = time.time() - created_ms / 1000
    for unit, size in (("d", DAY_S), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


@app.command()
def rollback(
    name: Name,
    reason: Annotated[str, typer.Option(help="For the audit trail.")],
) -> None:
    """Make the previous champion the champion again; twice undoes it."""
    import hemaml

    print(f"{hemaml.rollback(name, reason=reason).uri} is champion")


@app.command()
def history(name: Name) -> None:
    """The audit trail: every look, promotion, refusal and rollback."""
    import hemaml

    rows = [
        [
            time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.when_ms / 1000)),
            entry.action,
            entry.outcome,
            f"{entry.champion or 'none'} -> {entry.version}",
            "" if entry.score is None else f"{entry.score:.4f}",
            str(entry.look or ""),
            entry.who,
            entry.reason or "; ".join(entry.failed),
        ]
        for entry in hemaml.history(name)
    ]
    columns = ["when", "what", "outcome", "versions", "held-out", "look", "who", "reason"]
    print_table(columns, rows)
