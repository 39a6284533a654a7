"""Examinations: of the places hemaml works in, and of a sweep whose two records must agree."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal

from hemaml.core import settings
from hemaml.core.errors import HemamlError
from hemaml.core.tracker import Record, Tracker
from hemaml.engines.optuna_engine import Searched, searched
from hemaml.engines.optuna_study import open_storage
from hemaml.job import resolve_device
from hemaml.overview import refresh
from hemaml.record import (
    abandoned,
    end_abandoned,
    find_sweep,
    left_running,
    open_job,
    stored_plan,
    sweep_records,
    trackers,
)
from hemaml.resuming import exclusive, is_elsewhere
from hemaml.sweep import study_of
from hemaml.tracking.mlflow_run import without_secret
from hemaml.trail import ACTIONS, settle

UNDONE = ("running", "waiting")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was examined."""

    what: str
    state: Literal["ok", "note", "wrong", "repaired"]
    found: str


def examine(*, repair: bool = False) -> list[Finding]:
    """Stores reachable, folders writable, device and data present, no run left behind.

    Args:
        repair: End runs that no process works on any more.
    """
    tracking = _examine("tracking store", _tracking)
    return [
        tracking,
        _examine("study storage", _study_storage),
        _examine("cache", lambda: _writable(settings.cache_root())),
        _examine("scratch", lambda: _writable(settings.store_root())),
        Finding("device", "ok", resolve_device("auto")),
        _data(),
        *([] if tracking.state == "wrong" else [*_abandoned(repair=repair), *_unfinished()]),
    ]


def _examine(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, "ok", look())
    except (HemamlError, OSError) as error:
        return Finding(what, "wrong", str(error))


def _tracking() -> str:
    return f"{without_secret(settings.tracking_uri())}, {len(sweep_records())} sweeps"


def _study_storage() -> str:
    location = settings.study_storage()
    studies = open_storage(location).get_all_studies()
    return f"{without_secret(location)}, {len(studies)} studies"


def _writable(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder) as file:
        file.write(b"x")
    return str(folder)


def _data() -> Finding:
    try:
        return Finding("data", "ok", str(settings.data_root()))
    except HemamlError as error:
        return Finding("data", "note", str(error))


def _abandoned(*, repair: bool) -> list[Finding]:
    found = [(tracker, run) for tracker in trackers() for run in abandoned(tracker)]
    if repair:
        for tracker, run in found:
            (settle if run.tags["kind"] in ACTIONS else end_abandoned)(tracker, run)
            refresh(tracker)
        return [Finding("run", "repaired", f"{run.name} ended") for _, run in found]
    return [
        Finding("run", "wrong", f"{run.name} ({run.tags['kind']}) says RUNNING, but its process "
                "has ended: end it with `hemaml doctor --repair`, or go on with --resume")
        for _, run in found
    ]  # fmt: skip


def _unfinished() -> list[Finding]:
    return [
        Finding("sweep", "note", f"{r.tags['sweep']} is {r.tags.get('outcome')}: resume it, or "
                f"look closer with `hemaml doctor --sweep {r.tags['sweep']}`")
        for r in sweep_records()
        if r.tags.get("outcome") not in ("finished", "no_winner")
    ]  # fmt: skip


def examine_sweep(sweep_id: str, *, repair: bool = False) -> list[Finding]:
    """Whether the study and the tracking store tell the same of every trial.

    Args:
        sweep_id: The sweep.
        repair: End the sweep and what is left RUNNING below it. Whether a process works on it in
            another folder or on another machine is for the caller to know.

    Raises:
        UnknownName: No such sweep.
        ConfigError: A process of this folder is working on it.
    """
    record = find_sweep(sweep_id)
    job = open_job(stored_plan(record), sweep_id=sweep_id)
    open_storage(settings.study_storage())  # fails at once where `searched` would wait
    with exclusive(job):
        findings = [_left_running(job.tracker, record, repair=repair)]
        trials = searched(study_of(job, record.tags["study"]))
        runs = job.tracker.find({"kind": "trial"}, parent=record.id)
        return [*findings, *compare(trials, runs)]


def _left_running(tracker: Tracker, record: Record, *, repair: bool) -> Finding:
    """The sweep's own run included: whoever examines holds its lock, so nobody here works on it."""
    running = left_running(tracker, record.id, record.tags["sweep"])
    running += [record] if record.status == "RUNNING" else []
    if not running:
        return Finding("runs left RUNNING", "ok", "none")
    if not repair:
        names = ", ".join(run.name for run in running)
        if is_elsewhere(record):
            found = f"{names}, by {record.tags['process']!r}: end them with --repair if it is gone"
            return Finding("runs left RUNNING", "note", found)
        found = f"{names}: end them with --repair, or go on with --resume"
        return Finding("runs left RUNNING", "wrong", found)
    end_abandoned(tracker, record)
    refresh(tracker)
    return Finding("runs left RUNNING", "repaired", f"{len(running)} ended")


def compare(trials: list[Searched], runs: list[Record]) -> list[Finding]:
    """One finding a kind of disagreement between a study and its runs."""
    by_number = Counter(int(run.tags["trial"]) for run in runs)
    ended = [trial for trial in trials if trial.ending not in UNDONE]
    outcomes = {run.id: run.tags.get("outcome") for run in runs}
    values = {run.id: run.metrics for run in runs}
    missing = [t.number for t in ended if t.run_id and t.run_id not in outcomes]
    differing = [t.number for t in ended if outcomes.get(t.run_id, t.ending) != t.ending]
    unequal = [t.number for t in ended if t.values and not _has(values.get(t.run_id, {}), t)]
    doubled = [number for number, count in by_number.items() if count > 1]
    strangers = sorted(set(by_number) - {trial.number for trial in trials})
    undone = [trial.number for trial in trials if trial.ending in UNDONE]
    return [
        _verdict("trials without their run", missing),
        _verdict("trials with two runs", doubled),
        _verdict("runs without their trial", strangers),
        _verdict("trials whose outcomes differ", differing),
        _verdict("trials whose values differ", unequal),
        Finding("trials", "ok", f"{len(ended)} ended, {len(undone)} to be continued"),
    ]


def _has(metrics: object, trial: Searched) -> bool:
    assert isinstance(metrics, dict)
    return all(value in metrics.values() for value in trial.values)


def _verdict(what: str, numbers: list[int]) -> Finding:
    if not numbers:
        return Finding(what, "ok", "none")
    return Finding(what, "wrong", ", ".join(map(str, numbers)))
