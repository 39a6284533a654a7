"""A table of a paper measured again, row by row, and shown beside the paper's figures.

Each row is an evaluation (`hemaml.evaluate`): an experiment on outer splits, each test part scored
once. What is finished is told again without training; what was interrupted goes on. In a table of
times each row is a new model against the clock, measured each time. A row that cannot be measured
says why, and the others go on.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from hemaml.core import settings
from hemaml.core.documents import canonical_json
from hemaml.core.errors import ConfigError, HemamlError, StoreError
from hemaml.core.provenance import git_state, this_process
from hemaml.core.staging import staging
from hemaml.core.tracker import Run
from hemaml.engines.workers import check_workers
from hemaml.evaluate import Evaluation, evaluate
from hemaml.metrics import mean_and_deviation, replace_metrics
from hemaml.overview import described
from hemaml.record import at_rest, ended_on_error, lock
from hemaml.reproduce.less import differences, differences_of_times
from hemaml.reproduce.page import as_csv, note, render
from hemaml.reproduce.result import Measured
from hemaml.reproduce.table import (
    SIZE,
    PaperTable,
    RowPlan,
    TableFile,
    find_table,
    row_plans,
)
from hemaml.tracking.mlflow_tracker import MlflowTracker
from hemaml.tracking.views import run_page, ui_address

V = TypeVar("V")

PAGE, TABLE = "table.html", "table.csv"
"""Artifacts of a table's run."""


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A table beside the paper's.

    Attributes:
        table: What was measured, as its file has it.
        rows: One a chosen row, in order.
        page: The HTML page that was written.
        run_id: The run above, with the page, the same as CSV, and the figures as metrics.
        link: Its page in the MLflow UI.
    """

    table: TableFile
    rows: Sequence[Measured]
    page: Path
    run_id: str
    link: str

    @property
    def complete(self) -> bool:
        """Whether each row was measured."""
        return not any(row.reason for row in self.rows)


def reproduce(
    table: str,
    *,
    rows: Sequence[str] = (),
    overrides: Sequence[str] = (),
    splits: int | None = None,
    seeds: int = 1,
    workers: int = 1,
    told: Callable[[Measured], None] = lambda row: None,
) -> Reproduction:
    """Measures a paper's table, or takes over what has been measured.

    Args:
        table: Its name, or the path of its file; see `hemaml.reproduce.table`.
        rows: Names of rows; default: all.
        overrides: `key=value` for every row that has the key, or `row:key=value` for one.
        splits: Outer splits a seed; default: as `evaluate` has them.
        seeds: Of the splits: 0, 1, ...; scores are over all splits of all seeds.
        workers: Processes that train splits side by side.
        told: Called with each row as soon as it is there.

    Raises:
        UnknownName: No such table or row.
        ConfigError: What is asked for is wrong for a row; nothing has run then.
        StoreError: The store failed; what is finished is kept.
    """
    if seeds < 1:
        raise ConfigError(f"`seeds >= 1` must hold, but got {seeds}.")
    if splits is not None and splits < 1:
        raise ConfigError(f"`splits >= 1` must hold, but got {splits}.")
    check_workers(workers)
    found = find_table(table)
    if found.table.timed and (splits is not None or seeds > 1 or workers > 1):
        raise ConfigError(
            f"{found.name} is a table of times, of one model after the other: leave `splits`, "
            "`seeds` and `workers` out."
        )
    plans = row_plans(found, found.keys(rows), overrides)
    task = plans[0].plan.experiment.task
    tracker = MlflowTracker(settings.tracking_uri(), task)
    asked: dict[str, object] = {"rows": [p.key for p in plans], "set": list(overrides)}
    if not found.table.timed:
        asked |= {"splits": splits or "usual", "seeds": seeds}
    run = _open(tracker, found, asked)
    measured = list[Measured]()
    with described(tracker), ended_on_error(tracker, run):
        replace_metrics(tracker, run, {})  # a row may fail that was measured an earlier time
        run.flush()
        for plan in plans:
            row = _measure(found, plan, tracker, splits, seeds, workers, run.id)
            measured.append(replace(row, first=measured[0]) if measured else row)
            run.log_metrics(row.metrics(found.table.metrics))
            run.flush()
            told(row)
        link = f"{ui_address(tracker.uri)}/{run_page(tracker, run.id)}"
        result = Reproduction(found, measured, _page_file(found), run.id, link)
        _log(run, result, asked)
    return result


def _open(tracker: MlflowTracker, found: TableFile, asked: Mapping[str, object]) -> Run:
    """The run of what is asked for: a new one, or the one that has asked for the same before."""
    document = found.table.model_dump(mode="json", by_alias=True)
    text = canonical_json([found.name, document, asked])
    key = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    now = {"outcome": "running", "reason": "", "process": this_process(), **git_state()}
    with lock(key):  # of two that begin at once, one alone goes on with what there is
        for record in reversed(tracker.find({"kind": "table", "table_key": key})):
            if at_rest(record):
                run: Run = tracker.reopen(record.id)
                run.set_tags(now)
                return run
        own = {"kind": "table", "table": found.name, "table_key": key, "source": found.table.source}
        run = tracker.start(found.name, {**own, **now})
    run.log_params(asked)
    return run


def _measure(
    found: TableFile,
    row: RowPlan,
    tracker: MlflowTracker,
    splits: int | None,
    seeds: int,
    workers: int,
    parent: str,
) -> Measured:
    """One row; what keeps it from being measured is told in it."""
    evaluations: list[Evaluation] = []
    try:
        if found.table.timed:
            return _timed(found.table, row, found.table.timed)
        for seed in range(seeds):
            evaluations.append(
                evaluate(row.plan, splits=splits, seed=seed, workers=workers, parent=parent)
            )
        split = json.loads(tracker.read_text(evaluations[0].run_id, "split.json"))
        differing = differences(found.table, row, split)
    except StoreError:  # no row could succeed
        raise
    except HemamlError as error:
        return Measured(row.key, row.row.label, row.row.paper, reason=str(error))
    view = row.row.view
    each = [of_view(view, scores) for evaluation in evaluations for scores in evaluation.splits]
    size = float(row.plan.objective.size(row.plan.params({})))
    # Of several seeds, each has an interval of its own.
    intervals = of_view(view, evaluations[0].intervals) if seeds == 1 else {}
    return Measured(
        key=row.key,
        label=row.row.label,
        paper=row.row.paper,
        scores={**mean_and_deviation(each), SIZE: (size, math.nan)},
        intervals=intervals,
        splits=len(evaluations[0].splits),
        seeds=seeds,
        split_kind=split["kind"],
        differences=tuple(differing),
        links=tuple(evaluation.link for evaluation in evaluations),
    )


def _timed(table: PaperTable, row: RowPlan, num: int) -> Measured:
    """A new model of a row against the clock, on the first images of its data."""
    # It imports torch, which a list of tables can do without.
    from hemaml.reproduce.timing import PASSES, setting, timings

    times = timings(row, num)
    size = float(row.plan.objective.size(row.plan.params({})))
    return Measured(
        key=row.key,
        label=row.row.label,
        paper=row.row.paper,
        scores={**times, SIZE: (size, math.nan)},
        passes=PASSES,
        differences=tuple(differences_of_times(table, row, setting(row.plan.experiment.device))),
    )


def of_view(view: str, scores: Mapping[str, V]) -> dict[str, V]:
    """The scores of a view of a model under their plain names; of the model itself without one."""
    if not view:
        return dict(scores)
    prefix = f"{view}/"
    return {n.removeprefix(prefix): v for n, v in scores.items() if n.startswith(prefix)}


def _page_file(found: TableFile) -> Path:
    return settings.store_root() / "reports" / f"{found.name}.html"


def _log(run: Run, result: Reproduction, asked: Mapping[str, object]) -> None:
    """Stores the table in its run, and the page in a file as well."""
    page = render(result.table, result.rows, asked, result.link)
    try:
        result.page.parent.mkdir(parents=True, exist_ok=True)
        with staging(result.page) as folder:
            (folder / PAGE).write_text(page, encoding="utf-8")
            os.replace(folder / PAGE, result.page)
    except OSError as error:
        raise StoreError(
            f"a table needs a file that can be written, but {result.page} gave: {error}."
        ) from error
    run.log_text(page, PAGE)
    run.log_text(as_csv(result.table.table, result.rows), TABLE)
    run.set_tags(
        {
            "outcome": "finished" if result.complete else "incomplete",
            "mlflow.note.content": note(result.table, result.rows),
        }
    )
    run.end("FINISHED" if result.complete else "FAILED")
