"""What must hold for a sweep to be gone on with: its question, its data, and that nobody else does.

One process runs a sweep at a time. In one folder a lock says so, which a kill frees; of others the
record has the process.
"""

from collections.abc import Sequence

from filelock import AcquireReturnProxy, FileLock, Timeout

from hemaml.core.documents import override
from hemaml.core.errors import ConfigError
from hemaml.core.experiment import Plan, plan_from
from hemaml.core.provenance import this_process
from hemaml.core.tracker import Record
from hemaml.job import Job
from hemaml.record import at_rest, goals_text, lock, run_tags, stored_plan, sweep_records


def unfinished_sweep(task: str, experiment: str) -> Record:
    """The latest sweep of an experiment that has not finished. Raises `ConfigError`.

    One that another process runs is found only where there is no other.
    """
    for record in sorted(reversed(sweep_records()), key=is_elsewhere):
        of_task = record.tags["objective"].startswith(f"{task}.")
        named = of_task and record.tags["experiment"] == experiment
        if named and record.tags.get("outcome") != "finished":
            return record
    raise ConfigError(
        f"`resume` needs a sweep that has not finished, but {experiment!r} has none. "
        "Start one without --resume, or name a finished one by its id to add trials."
    )


def changed_plan(record: Record, overrides: Sequence[str]) -> Plan:
    """The plan of a sweep with changes of its `sweep:` section.

    Raises:
        ConfigError: An override is of another section, or changes what finished trials were
            compared by: the goals, or to a lower `max_params`.
    """
    plan = stored_plan(record)
    assert plan.space is not None
    document = plan.experiment.document()
    for assignment in overrides:
        if not assignment.startswith("sweep."):
            raise ConfigError(
                "a resumed sweep keeps its question: only `sweep.*` may be set, "
                f"but got {assignment!r}."
            )
        document = override(document, assignment)
    changed = plan_from(document, plan.space.model_dump(mode="json"))
    if (asked := goals_text(changed)) != record.tags["goals"]:
        raise ConfigError(
            f"a resumed sweep keeps its goals, {record.tags['goals']}, but got {asked}. Begin a "
            "new sweep for others; --warm-start lets it learn from this one where they are equal."
        )
    before, limit = (p.experiment.sweep.max_params for p in (plan, changed))
    if limit is not None and (before is None or limit < before):
        raise ConfigError(
            f"a resumed sweep may only raise `max_params`, which was {before}, but got {limit}: "
            "its best trial may be larger. Begin a new sweep, which takes over what is equal."
        )
    return changed


def check_same_data(job: Job, record: Record) -> None:
    """Raises `ConfigError` where a sweep's data or its split is not what its record says."""
    now = run_tags(job)
    for name in ("data_digest", "held_out_digest", "split_digest"):
        if record.tags[name] != now[name]:
            raise ConfigError(
                f"a sweep goes on with the data it began on, but its {name} was "
                f"{record.tags[name]} and is {now[name]}. Restore the data, or start a new sweep."
            )


def exclusive(job: Job) -> "AcquireReturnProxy[FileLock]":
    """The lock of a sweep, which is refused where another process of this folder holds it."""
    try:
        return lock(job.sweep).acquire(blocking=False)
    except Timeout as error:
        raise ConfigError(
            f"a sweep is run by one process, but {job.sweep} is being run by another. "
            "Wait for it, or end it first."
        ) from error


def is_elsewhere(record: Record) -> bool:
    """Whether another process runs a sweep, as far as can be known from here."""
    return not at_rest(record) and record.tags["process"] != this_process()


def check_not_elsewhere(record: Record) -> None:
    """Raises `ConfigError` where another process runs a sweep, from whatever folder or machine."""
    if is_elsewhere(record):
        sweep_id, process = record.tags["sweep"], record.tags["process"]
        raise ConfigError(
            f"a sweep is run by one process, but {sweep_id} is being run by {process!r} (host, "
            "number, birth). Wait for it, or end it; where that machine is gone, "
            f"`hemaml doctor --sweep {sweep_id} --repair` first."
        )
