"""Reports: what sweeps found, as one page that works offline and as tables for the terminal."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hemaml.core import settings
from hemaml.core.errors import ConfigError, StoreError, UnknownName
from hemaml.core.tracker import Record
from hemaml.explain import Picture
from hemaml.record import sweep_records, trackers
from hemaml.report.gather import Swept, read_sweep
from hemaml.report.page import Group, render, study_page
from hemaml.report.study import studies, study_table, sweep_tables
from hemaml.report.study_figure import study_png
from hemaml.report.tables import Table, evaluations, winners

FILE = "report.html"
"""Artifact of a sweep's run."""


@dataclass(frozen=True, slots=True)
class Report:
    """A report that was written.

    Attributes:
        path: The page.
        tables: What it says in tables, in order.
        sweeps: Ids of the sweeps in it.
        link: The run in the MLflow UI that has the page too; empty for several sweeps.
    """

    path: Path
    tables: Sequence[Table]
    sweeps: Sequence[str]
    link: str


def report(*names: str, output: str | Path | None = None) -> Report:
    """Writes one self-contained page about sweeps; that of one sweep also goes to its run.

    Args:
        *names: Each the id of a sweep, an experiment (its file's path or name) or a task; default:
            everything in the store.
        output: Where the page goes; default: `mlruns/reports/`.

    Raises:
        UnknownName: No sweep, experiment or task of that name has been recorded.
        ConfigError: There is no sweep at all.
        StoreError: The store failed, or the disk.
    """
    chosen = _chosen(names)
    sweeps = [read_sweep(record) for record in reversed(chosen)]
    groups = list(_groups(sweeps, _evaluations()))
    title = sweeps[0].name if len(sweeps) == 1 else " and ".join(names) or "All sweeps"
    page = render(title, groups)
    path = Path(output) if output else settings.store_root() / "reports" / f"{_slug(title)}.html"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"a report needs a file that can be written, but {path} gave: {error}. "
            "Name another with --output."
        ) from error
    link = ""
    if len(sweeps) == 1:
        push(sweeps[0], page)
        link = sweeps[0].page(sweeps[0].record.id)
    tables = [
        table
        for group in groups
        for table in (*group.tables, *(t for sweep in group.sweeps for t in sweep_tables(sweep)))
    ]
    return Report(path, tables, [sweep.name for sweep in sweeps], link)


def study_pictures(record: Record) -> list[Picture]:
    """The figures that a sweep's experiment asks for, as PNG and as pages that work offline."""
    sweep = read_sweep(record)
    return [
        Picture(study.figure.name, png=study_png(study), html=study_page(sweep, study))
        for study in studies(sweep)
    ]


def study_tables(record: Record) -> list[Table]:
    """The same in numbers."""
    return [study_table(study) for study in studies(read_sweep(record))]


def push_report(record: Record) -> None:
    """Makes the page of a sweep an artifact of its run, whatever the run's state."""
    sweep = read_sweep(record)
    push(sweep, render(sweep.name, list(_groups([sweep], []))))


def push(sweep: Swept, page: str) -> None:
    """Stores a page as an artifact of a sweep's run."""
    sweep.tracker.amend(sweep.record.id).log_text(page, FILE)


def _chosen(names: Sequence[str]) -> list[Record]:
    """The sweeps that are meant, oldest first, each once."""
    records = sweep_records()
    if not records:
        raise ConfigError(
            "a report needs a sweep, but the store has none. Start one with `hemaml sweep`."
        )
    if not names:
        return records
    meant = {record.id for name in names for record in _named(name, records)}
    return [record for record in records if record.id in meant]


def _named(name: str, records: Sequence[Record]) -> list[Record]:
    path = Path(name)
    if path.suffix == ".yaml":
        meant = (path.resolve().parent.name, path.stem)
        found = [r for r in records if (_task(r), r.tags["experiment"]) == meant]
    else:
        found = [r for r in records if name in _names(r)]
    if not found:
        known = dict.fromkeys(text for record in records for text in _names(record))
        raise UnknownName("sweep, experiment or task", name, list(known))
    return found


def _names(record: Record) -> tuple[str, str, str]:
    return record.tags["sweep"], record.tags["experiment"], _task(record)


def _task(record: Record) -> str:
    return record.tags["objective"].partition(".")[0]


def _evaluations() -> list[Record]:
    return [run for tracker in trackers() for run in tracker.find({"kind": "evaluation"})]


def _groups(sweeps: Sequence[Swept], evaluated: Sequence[Record]) -> Iterator[Group]:
    """Sweeps by what may be compared; evaluations beside those of the same experiments."""
    kinds: dict[tuple[str, str, str, str], list[Swept]] = {}
    for sweep in sweeps:
        tags = sweep.record.tags
        kind = (sweep.task, tags["data"], tags["classes"], sweep.goal.metric)
        kinds.setdefault(kind, []).append(sweep)
    for (task, data, classes, goal), members in kinds.items():
        names = {member.record.tags["experiment"] for member in members}
        beside = [
            r for r in evaluated
            if (_task(r), r.tags["data"], r.tags["classes"]) == (task, data, classes)
            and r.tags["experiment"] in names
        ]  # fmt: skip
        found = [winners(members), evaluations(beside, goal)]
        yield Group(members, [table for table in found if table is not None])


def _slug(title: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", title).strip("-")
