"""The audit trail: one run for each look at the held-out part and each move of a champion.

Such a run is opened before anything is scored, so a look counts even if its process dies, and its
verdict is stored before an alias moves. Runs are added, never changed after their end.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hemaml.core import settings
from hemaml.core.provenance import this_process, this_user
from hemaml.core.tracker import Record, Run
from hemaml.tracking.mlflow_tracker import MlflowTracker
from hemaml.tracking.registry import CHAMPION, Registry, Version

Action = Literal["promotion", "rollback"]
Outcome = Literal["promoted", "forced", "refused", "would_pass", "rolled_back"]
"""How a move ends; `would_pass` is a dry run's. In the trail also `overtaken` and `interrupted`."""
MOVING = "moving"
"""The outcome while the alias is being moved."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the trail.

    Attributes:
        when_ms: Milliseconds since 1970.
        action: A promotion (also one that was refused) or a rollback.
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


def looks(tracker: MlflowTracker, held_out_digest: str) -> int:
    """How often this held-out part has been looked at in this task."""
    return len(tracker.find({"kind": "promotion", "held_out_digest": held_out_digest}))


def history(name: str) -> list[Entry]:
    """All promotions, refused ones included, and rollbacks of a registered model, oldest first.

    Raises:
        UnknownName: There is no such registered model.
    """
    registry = Registry(settings.tracking_uri())
    tracker = tracker_of(registry, name)
    records = [
        record
        for action in ("promotion", "rollback")
        for record in tracker.find({"kind": action, "registered_model": name})
    ]
    return [_entry(record) for record in sorted(records, key=lambda record: record.start_ms)]


def tracker_of(registry: Registry, name: str) -> MlflowTracker:
    """The tracker of the task that a registered model belongs to. Raises `UnknownName`."""
    task = registry.versions(name)[-1].tags["objective"].partition(".")[0]
    return MlflowTracker(registry.uri, task)


def settle(tracker: MlflowTracker, record: Record) -> None:
    """Ends an entry whose process died while moving an alias, which tells how it ended."""
    tags = record.tags
    champion = Registry(tracker.uri).by_alias(tags["registered_model"], CHAMPION)
    moved = champion is not None and champion.number == int(tags["version"])
    run = tracker.reopen(record.id)
    run.set_tags({"outcome": tags["intent"] if moved else "interrupted", "settled": "by doctor"})
    run.end("FINISHED" if moved else "KILLED")


def _entry(record: Record) -> Entry:
    tags = record.tags
    primary = record.metrics.get(f"held_out/{tags.get('primary', '')}")
    return Entry(
        when_ms=record.start_ms,
        action=tags["kind"],
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
