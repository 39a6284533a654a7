"""Commands that train: `list`, `check`, `run`, `sweep`, `evaluate`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hemaml.cli.arguments import ExperimentPath, Sets
from hemaml.cli.show import cell, figure, headline, print_scores, print_table
from hemaml.core.errors import ConfigError, TrialError

app = typer.Typer()


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
    print_table(["experiment", "objective", "question"], rows)
    print(f"objectives: {', '.join(objective_names())}")
    print(f"readers: {', '.join(reader_names())}")


@app.command()
def check(
    experiments: Annotated[list[Path] | None, typer.Argument(help="Default: all.")] = None,
    set_: Sets = None,
) -> None:
    """Check experiments and search spaces without training."""
    from hemaml.core.experiment import check_files

    paths = experiments or sorted(Path("experiments").glob("*/*.yaml"))
    if not paths:
        raise ConfigError(
            f"experiments are looked for as experiments/<task>/<name>.yaml, but {Path.cwd()} has "
            "none. Go to the folder above `experiments`, or name the files."
        )
    checked = check_files(paths, set_ or [])
    rows = [[c.path, "ok" if not c.error else "wrong", c.error or c.summary] for c in checked]
    print_table(["experiment", "state", "what"], rows)
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
    print_table(["metric", "value"], [[k, figure(v)] for k, v in headline(result.metrics).items()])
    if result.reused_from:
        print(f"taken over from the equal run {result.reused_from}")
    _tell_unregistered(result)
    print(f"run {result.run_id}; look at it with `hemaml ui` at {result.link}")


@app.command()
def sweep(
    experiment: ExperimentPath,
    set_: Sets = None,
    trials: Annotated[int | None, typer.Option(help="Trials in all.")] = None,
    hours: Annotated[float | None, typer.Option(help="Start no trial after these.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes side by side.")] = None,
    engine: Annotated[str | None, typer.Option(help="native, or ray.")] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster: auto, HOST:PORT or ray://HOST:PORT.")
    ] = None,
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

    if address and engine is None:
        engine = "ray"
    given = {
        "trials": trials, "hours": hours, "workers": workers, "engine": engine, "address": address,
    }  # fmt: skip
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


def _tell_unregistered(result: Any) -> None:
    if result.unregistered:
        print(f"NOT registered, as this user may not; {result.unregistered}")


def _print_result(result: Any) -> None:
    from hemaml.core.search import Change
    from hemaml.course import told_values
    from hemaml.record import find_sweep
    from hemaml.report import study_tables

    frame = result.trials()
    goals = [goal.metric for goal in result.plan.goals]
    shown = [c for c in frame.columns if c not in ("run_id", "best", "seconds", "reason")]
    if result.best is None:
        reasons = sorted({trial.reason for trial in result.searched if trial.reason})
        why = "; ".join(reasons[:3]) or "none was started within `hours`"
        raise TrialError(f"no trial finished: {why}. Go on with --resume --id {result.id}.")
    done = frame[frame["ending"] == "finished"]
    maximize = result.plan.goals[0].direction == "maximize"
    board = done.sort_values(goals[0], ascending=not maximize).head(10)
    rows = [[cell(value) for value in row] for row in board[shown].to_numpy().tolist()]
    print_table(shown, rows, title="Leaderboard (validation, one seed each)")
    for table in study_tables(find_sweep(result.id)) if result.plan.experiment.figures else []:
        print_table(list(table.columns), [list(row) for row in table.rows], title=table.title)
        print(table.note)
    print_scores("Winner, over seeds", result.confirmed, result.plan.experiment.paper)
    winner = told_values([Change(-1, result.best), *result.changes])
    _tell_unregistered(result)
    print(f"winner: {' '.join(f'{k}={cell(v)}' for k, v in winner.items())}")
    print(f"look at it with `hemaml ui` at {result.link}")
    if unconfirmed := find_sweep(result.id).tags.get("unconfirmed"):
        print(f"NOT confirmed: {unconfirmed}; their runs tell why")
        if not result.confirmed:
            raise TrialError(
                "a winner is trained again by other seeds, but none of them finished. See why in "
                f"its runs, then go on with --resume --id {result.id}, or choose another point."
            )


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
    from hemaml.core.search import Change
    from hemaml.notes import counted, told
    from hemaml.record import recorded_course

    plan = hemaml.load_experiment(experiment, set_ or [], search=False)
    course = [Change(-1, {})]
    if sweep_id or run_id:
        keep = [text.partition("=")[0].removeprefix("params.") for text in set_ or []]
        course = recorded_course(plan, sweep_id=sweep_id, run_id=run_id, keep=keep)
    result = hemaml.evaluate(
        plan,
        point=course[0].point,
        changes=course[1:],
        splits=splits,
        seed=seed,
        workers=workers,
    )
    title = f"Test parts of {counted(len(result.splits), 'outer split')}"
    print_scores(title, result.scores, result.paper, result.intervals)
    if result.pooled:
        rows = [
            [name, figure(value), told(result.pooled_intervals.get(name))]
            for name, value in headline(result.pooled).items()
        ]
        columns = ["metric", "value", "95 % interval"]
        print_table(columns, rows, title="All test predictions together")
    print(f"run {result.run_id}; look at it with `hemaml ui` at {result.link}")
