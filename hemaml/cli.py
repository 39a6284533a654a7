"""The command line: parse, call, print. Everything here can be done from Python as well."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from hemaml.core.errors import ConfigError, DataError, HemamlError, TrialError

app = typer.Typer(
    help="Launch sweeps, compare them in MLflow, promote the winner.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Look at data sets, import and verify them.", no_args_is_help=True)
cache_app = typer.Typer(help="Inspect and clear the cache.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(cache_app, name="cache")

ExperimentPath = Annotated[Path, typer.Argument(help="experiments/<task>/<name>.yaml")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key; repeat.")
]


def main() -> None:
    """Runs the command line; users' errors are printed without a traceback."""
    try:
        app()
    except HemamlError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


@app.command("list")
def list_experiments() -> None:
    """Experiments, objectives and readers that there are."""
    from hemaml.core.documents import read_yaml
    from hemaml.core.objective import objective_names
    from hemaml.data.reading import reader_names

    rows = []
    for path in sorted(Path("experiments").glob("*/*.yaml")):
        document = read_yaml(path)
        rows.append([str(path), document.get("objective", ""), document.get("question", "")])
    _table(["experiment", "objective", "question"], rows)
    print(f"objectives: {', '.join(objective_names())}")
    print(f"readers: {', '.join(reader_names())}")


@app.command()
def check(
    experiments: Annotated[list[Path] | None, typer.Argument(help="Default: all.")] = None,
    set_: Sets = None,
) -> None:
    """Check experiments and search spaces without training."""
    from hemaml.core.experiment import check_files

    checked = check_files(experiments or sorted(Path("experiments").glob("*/*.yaml")), set_ or [])
    rows = [[c.path, "ok" if not c.error else "wrong", c.error or c.summary] for c in checked]
    _table(["experiment", "state", "what"], rows)
    if any(c.error for c in checked):
        raise typer.Exit(1)


@app.command()
def run(
    experiment: ExperimentPath,
    set_: Sets = None,
    seed: Annotated[int | None, typer.Option(help="Replaces the derived seed.")] = None,
) -> None:
    """Train one point and record it."""
    import hemaml

    result = hemaml.run(experiment, overrides=set_ or [], seed=seed)
    if result.ending != "finished":
        raise ConfigError(f"the run ended as {result.ending}: {result.reason}")
    _table(["metric", "value"], [[k, f"{v:.4f}"] for k, v in _headline(result.metrics).items()])
    if result.reused_from:
        print(f"taken over from the equal run {result.reused_from}")
    print(f"run {result.run_id}; look at it with `hemaml ui` at {result.link}")


@app.command()
def sweep(
    experiment: ExperimentPath,
    set_: Sets = None,
    trials: Annotated[int | None, typer.Option(help="Trials in all.")] = None,
    hours: Annotated[float | None, typer.Option(help="Start no trial after these.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes side by side.")] = None,
    warm_start: Annotated[
        bool, typer.Option("--warm-start", help="Learn from earlier sweeps of this space first.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the latest unfinished sweep, or --id.")
    ] = False,
    sweep_id: Annotated[str | None, typer.Option("--id", help="The sweep to resume.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of a live table.")] = False,
) -> None:
    """Search an experiment's space, then confirm the winner over seeds."""
    from hemaml.live import LiveView
    from hemaml.sweep import open_sweep, reopen_sweep

    given = {"trials": trials, "hours": hours, "workers": workers}
    options = [f"sweep.{name}={value}" for name, value in given.items() if value is not None]
    if sweep_id and not resume:
        raise ConfigError("`--id` names the sweep to resume: give --resume with it.")
    overrides = [*(set_ or []), *options]
    if resume:
        if warm_start:
            raise ConfigError("`--warm-start` is for a new sweep: leave it out with --resume.")
        opened = reopen_sweep(sweep_id, experiment=experiment, overrides=overrides)
    else:
        opened = open_sweep(experiment, overrides=overrides, warm_start=warm_start)
    print(f"sweep {opened.id}", flush=True)
    goal, settings = opened.plan.goals[0], opened.plan.experiment.sweep
    view = LiveView(opened.id, goal.metric, goal.direction, settings.trials, plain=plain)
    try:
        with view:
            result = opened.search(view)
    except KeyboardInterrupt:
        print("interrupted; all finished trials are kept. Go on with:", file=sys.stderr)
        print(f"  hemaml sweep {experiment} --resume --id {opened.id}", file=sys.stderr)
        raise typer.Exit(130) from None
    _print_result(result)


def _print_result(result: Any) -> None:
    frame = result.trials()
    goals = [goal.metric for goal in result.plan.goals]
    shown = [c for c in frame.columns if c not in ("run_id", "best", "seconds", "reason")]
    done = frame[frame["ending"] == "finished"]
    if result.best is None:
        reasons = sorted({trial.reason for trial in result.searched if trial.reason})
        raise TrialError("no trial finished: " + "; ".join(reasons[:3]))
    maximize = result.plan.goals[0].direction == "maximize"
    board = done.sort_values(goals[0], ascending=not maximize).head(10)
    rows = [[_cell(value) for value in row] for row in board[shown].to_numpy().tolist()]
    _table(shown, rows, title="Leaderboard (validation, one seed each)")
    _print_scores("Winner, over seeds", result.confirmed, result.plan.experiment.paper)
    print(f"winner: {' '.join(f'{k}={_cell(v)}' for k, v in result.best.items())}")
    print(f"look at it with `hemaml ui` at {result.link}")


def _print_scores(
    title: str, scores: Mapping[str, tuple[float, float]], paper: Mapping[str, str | float]
) -> None:
    """Mean and deviation, beside the paper's figures where there are any."""
    rows = [
        [name, f"{mean:.4f}", f"{deviation:.4f}", *([str(paper.get(name, ""))] if paper else [])]
        for name, (mean, deviation) in _headline(scores).items()
    ]
    if rows:
        _table(["metric", "mean", "deviation", *(["paper"] if paper else [])], rows, title=title)
    if source := paper.get("source"):
        print(f"paper: {source}; its splits are others")


@app.command()
def evaluate(
    experiment: ExperimentPath,
    splits: Annotated[
        int | None,
        typer.Option(help="Outer splits; default: 5 random ones, or the official folds."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the splits.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes side by side.")] = 1,
    sweep_id: Annotated[str | None, typer.Option("--sweep", help="Take its winner.")] = None,
    run_id: Annotated[str | None, typer.Option("--run", help="Take this run's point.")] = None,
    set_: Sets = None,
) -> None:
    """Score a chosen point on the test parts of a paper's protocol, each once."""
    import hemaml
    from hemaml.record import recorded_point

    plan = hemaml.load_experiment(experiment, set_ or [])
    point = None
    if sweep_id or run_id:
        keep = [text.partition("=")[0].removeprefix("params.") for text in set_ or []]
        point = recorded_point(plan, sweep_id=sweep_id, run_id=run_id, keep=keep)
    result = hemaml.evaluate(plan, point=point, splits=splits, seed=seed, workers=workers)
    _print_scores(f"Test parts of {len(result.splits)} outer splits", result.scores, result.paper)
    print(f"run {result.run_id}; look at it with `hemaml ui` at {result.link}")


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
    _table(["what", "state", "found"], [[f.what, f.state, f.found] for f in findings])
    if any(f.state == "wrong" for f in findings):
        raise typer.Exit(1)


@data_app.command("list")
def data_list() -> None:
    """Readers, the keys of their data section, and the data sets of the experiments."""
    from hemaml.data.reading import load_reader, reader_names

    rows = []
    for name in reader_names():
        fields = load_reader(name).spec.model_fields.items()
        rows += [
            [name if i == 0 else "", key, repr(f.default) if not f.is_required() else "required",
             f.description or ""]
            for i, (key, f) in enumerate(fields)
        ]  # fmt: skip
    _table(["reader", "key", "default", "meaning"], rows)


@data_app.command("import")
def data_import(
    source: Annotated[str, typer.Argument(help="A folder, a zip file or a URL.")],
    target: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    checksum: Annotated[str | None, typer.Option(help="sha256 of the archive.")] = None,
) -> None:
    """Copy a data set from a folder, a zip or a URL; whole or not at all."""
    from hemaml.data.importing import import_dataset

    print(import_dataset(source, target, checksum=checksum, progress=sys.stderr.isatty()))


@data_app.command("verify")
def data_verify(
    what: Annotated[str, typer.Argument(help="An experiment file or a reader.")],
    set_: Sets = None,
) -> None:
    """Name every bad file of a data set."""
    from hemaml.data.reading import verify_dataset

    section = _data_section(what, set_ or [])
    problems = verify_dataset(section)
    if problems:
        rows = [[p.severity, str(p.file), p.rule, p.found] for p in problems]
        _table(["severity", "file", "rule", "found"], rows)
    if any(problem.severity == "error" for problem in problems):
        raise DataError(f"{sum(p.severity == 'error' for p in problems)} files break a rule.")
    print(f"{section['reader']}: no errors, {len(problems)} warnings")


@data_app.command("show")
def data_show(
    what: Annotated[str, typer.Argument(help="An experiment file or a reader.")],
    set_: Sets = None,
    out: Annotated[Path | None, typer.Option(help="Write a contact sheet (PNG) there.")] = None,
) -> None:
    """Counts, sizes and identity of a data set, with a contact sheet if asked for."""
    from hemaml.data.reading import read_dataset
    from hemaml.explain.contact_sheet import contact_sheet, facts

    data = read_dataset(_data_section(what, set_ or []))
    _table(["fact", "value"], [[name, value] for name, value in facts(data).items()])
    if out is not None:
        out.write_bytes(contact_sheet(data))
        print(out)


def _data_section(what: str, overrides: list[str]) -> dict[str, Any]:
    from hemaml.core.documents import override, read_yaml

    is_file = what.endswith((".yaml", ".yml"))
    section = read_yaml(Path(what)).get("data") if is_file else {"reader": what}
    if not isinstance(section, dict):
        raise ConfigError(f"{what} must have a `data:` section, but it has {section!r} there.")
    for assignment in overrides:
        section = override(section, assignment.removeprefix("data."))
    return section


@cache_app.command("show")
def cache_show() -> None:
    """Entries and bytes by operation."""
    from hemaml.core import settings
    from hemaml.core.cache import Cache

    use = Cache(settings.cache_root()).use()
    _table(["operation", "entries", "MB"], [[u.operation, str(u.entries), f"{u.size / 1e6:.1f}"]
                                            for u in use])  # fmt: skip
    print(settings.cache_root())


@cache_app.command("clear")
def cache_clear() -> None:
    """Remove every entry; what is needed is computed again."""
    from hemaml.core import settings
    from hemaml.core.cache import Cache

    print(f"{Cache(settings.cache_root()).clear() / 1e6:.1f} MB freed")


def _table(columns: list[str], rows: list[list[str]], title: str = "") -> None:
    """A rich table on a terminal; tab-free aligned text elsewhere, never cut."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=None, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    width = None if sys.stdout.isatty() else 160
    Console(width=width, markup=False, highlight=False).print(table)


def _headline(metrics: Any) -> dict[str, Any]:
    """The scores, those of other views of a model (`mlp/auc`) included, less those of one class."""
    from hemaml.training import is_curve

    whole = {name for name in metrics if "/" not in name}
    return {
        name: value
        for name, value in sorted(metrics.items(), key=lambda item: ("/" in item[0], item[0]))
        if name in whole or (name.rpartition("/")[2] in whole and not is_curve(name))
    }


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
