"""The audit trail: one run for each look at the held-out part and each move of a champion.

Such a run is opened before anything is scored, so a look counts even if its process dies, and its
verdict is stored before an alias moves. Runs are added, never changed after their end; those that
somebody deleted in the MLflow UI are counted and shown all the same.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from hemaml.core import settings
from hemaml.core.errors import ConfigError, Overtaken, StoreError
from hemaml.core.provenance import this_process, this_user
from hemaml.core.tracker import Record, Run
from hemaml.tracking.mlflow_tracker import MlflowTracker
from hemaml.tracking.registry import CHAMPION, Registry, Version

Action = Literal["promotion", "rollback"]
Outcome = Literal["promoted", "forced", "refused", "would_pass", "rolled_back"]
"""How a move ends; `would_pass` is a dry run's. In the trail also `overtaken` and `interrupted`."""
MOVING = "moving"
"""The outcome while the alias is being moved; the tag `intent` has what it is to be."""
MOVED = ("promoted", "forced", "rolled_back")
ACTIONS = ("promotion", "rollback")
VERDICT = "verdict.json"
"""Name of the artifact that has all that an entry says."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the trail.

    Attributes:
        when_ms: Milliseconds since 1970.
        action: `promotion` (also one that was refused), `dry run`, `challenger` (that alias was to
            be moved) or `rollback`.
        outcome: One of `Outcome`, or `overtaken`, `interrupted`, or `running` while it goes on.
        version: Number of the version that was to become champion.
        champion: Number of the champion before, or None.
        who: `name@host`.
        score: The primary metric of the candidate on the held-out part, or None.
        failed: Rules that did not hold.
        reason: Of a forced promotion or a rollback.
        look: Which look at this held-out part it was; 0 for none.
        run_id: The run with the whole verdict.
    """

    when_ms: int
    action: str
    outcome: str
    version: int
    champion: int | None
    who: str
    score: float | None
    failed: tuple[str, ...]
    reason: str
    look: int
    run_id: str


def open_entry(
    tracker: MlflowTracker,
    action: Action,
    version: Version,
    champion: Version | None,
    tags: Mapping[str, object],
) -> Run:
    """The run of a promotion or a rollback, before anything is done."""
    before = "" if champion is None else champion.number
    basic = {
        "kind": action,
        "registered_model": version.name,
        "version": version.number,
        "champion": before,
        "who": this_user(),
        "process": this_process(),
        "outcome": "running",
        **tags,
    }
    name = f"{action}-v{version.number}-{version.name}"
    return tracker.start(name, {k: v for k, v in basic.items() if v != ""})


@contextmanager
def settled_on_error(tracker: MlflowTracker, entry: Run) -> Iterator[None]:
    """Ends an entry as what it is when anything goes wrong inside."""
    try:
        yield
    except BaseException as error:
        with suppress(StoreError):  # the fault itself, often; `hemaml doctor --repair` settles it
            settle(tracker, tracker.get(entry.id), overtaken=isinstance(error, Overtaken))
        raise


def looks(tracker: MlflowTracker, held_out_digest: str) -> int:
    """How often this held-out part has been looked at in this task."""
    wanted = {"kind": "promotion", "held_out_digest": held_out_digest}
    return len(tracker.find(wanted, deleted=True))


def history(name: str) -> list[Entry]:
    """All promotions, refused ones included, and rollbacks of a registered model, oldest first.

    Raises:
        UnknownName: There is no such registered model.
    """
    registry = Registry(settings.tracking_uri())
    return [_entry(record) for record in _records(tracker_of(registry, name), name)]


def tracker_of(registry: Registry, name: str) -> MlflowTracker:
    """The tracker of the task that a registered model belongs to.

    Raises:
        UnknownName: There is no such registered model.
        ConfigError: It has no version that hemaml registered.
    """
    objectives = [version.tags.get("objective", "") for version in registry.versions(name)]
    tasks = [objective.partition(".")[0] for objective in objectives if objective]
    if not tasks:
        raise ConfigError(
            f"a registered model must have versions that hemaml made, but {name!r} has "
            f"{len(objectives)} of others. Name another one."
        )
    return MlflowTracker(registry.uri, tasks[-1])


def settle(tracker: MlflowTracker, record: Record, *, overtaken: bool = False) -> None:
    """Ends an entry whose process died or failed.

    Where it did so while moving an alias, that and later entries tell how it ended.

    Args:
        tracker: The store that has the entry.
        record: The entry.
        overtaken: Whether another process is known to have moved the alias instead.
    """
    outcome = record.tags["outcome"]
    if overtaken:
        outcome = "overtaken"
    elif outcome == MOVING and _has_moved(tracker, record):
        outcome = record.tags["intent"]
    elif outcome in (MOVING, "running"):
        outcome = "interrupted"
    run = tracker.reopen(record.id)
    run.set_tags({"outcome": outcome})
    run.end("KILLED" if outcome in ("overtaken", "interrupted") else "FINISHED")


def _has_moved(tracker: MlflowTracker, record: Record) -> bool:
    name, version = record.tags["registered_model"], record.tags["version"]
    alias = record.tags.get("alias", CHAMPION)
    for later in _records(tracker, name) if alias == CHAMPION else []:
        if later.start_ms <= record.start_ms:
            continue
        if later.tags.get("champion") == version:
            return True
        same = later.tags["version"] == version and later.tags.get("alias", CHAMPION) == CHAMPION
        if same and later.tags["outcome"] in MOVED:  # so there was something to move
            return False
    now = Registry(tracker.uri).by_alias(name, alias)
    return now is not None and now.number == int(version)


def _records(tracker: MlflowTracker, name: str) -> list[Record]:
    """The entries of a registered model, oldest first."""
    found = [
        record
        for action in ACTIONS
        for record in tracker.find({"kind": action, "registered_model": name}, deleted=True)
    ]
    return sorted(found, key=lambda record: record.start_ms)


def _entry(record: Record) -> Entry:
    tags = record.tags
    primary = record.metrics.get(f"held_out/{tags.get('primary', '')}")
    return Entry(
        when_ms=record.start_ms,
        action=_action(tags),
        outcome=tags["outcome"],
        version=int(tags["version"]),
        champion=int(tags["champion"]) if "champion" in tags else None,
        who=tags["who"],
        score=primary,
        failed=tuple(json.loads(tags.get("failed", "[]"))),
        reason=tags.get("reason", ""),
        look=int(tags.get("look", 0)),
        run_id=record.id,
    )


def _action(tags: Mapping[str, str]) -> str:
    if tags.get("dry_run") == "true":
        return "dry run"
    return tags["kind"] if tags.get("alias", CHAMPION) == CHAMPION else tags["alias"]
