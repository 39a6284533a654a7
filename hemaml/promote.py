"""Promotion: the only reader of the held-out part, and the only mover of a champion.

Candidate and champion are scored on the same held-out images and compared in pairs; the gates of
the candidate's experiment decide. See `hemaml.core.gates` and `hemaml.core.judge`.
"""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal

from hemaml.card import model_card
from hemaml.core import settings
from hemaml.core.comparison import Comparison
from hemaml.core.dataset import Dataset
from hemaml.core.errors import ConfigError, ModelError
from hemaml.core.experiment import Plan
from hemaml.core.gates import BY_CLASS, BY_GROUP, RECORDED
from hemaml.core.judge import Check, Evidence, Side, Verdict, complete, judge
from hemaml.core.markdown import markdown_table
from hemaml.core.notify import notify
from hemaml.core.objective import load_objective
from hemaml.core.predictions import Answers
from hemaml.core.provenance import this_user
from hemaml.core.tracker import Run
from hemaml.ops.resampling import interval_metrics
from hemaml.overview import refresh
from hemaml.record import stored_plan
from hemaml.registering import MODEL, MODEL_RUN, candidate, recorded_tag
from hemaml.tracking.logged_model import parity
from hemaml.tracking.mlflow_tracker import MlflowTracker
from hemaml.tracking.registry import (
    CHALLENGER,
    CHAMPION,
    OF_MODEL,
    PREVIOUS,
    Registry,
    Version,
)
from hemaml.tracking.views import run_page, ui_address
from hemaml.trail import (
    MOVED,
    MOVING,
    VERDICT,
    Outcome,
    looks,
    open_entry,
    settled_on_error,
    tracker_of,
)


@dataclass(frozen=True, slots=True)
class Promotion:
    """How a promotion ended.

    Attributes:
        version: The candidate.
        champion: The champion before, or None.
        alias: What was to be moved.
        outcome: `promoted`, `forced`, `refused` or `would_pass` (a dry run that passed).
        verdict: Every check.
        comparisons: Score to the paired comparison with the champion.
        scores: The candidate's scores on the held-out part.
        num_images: Of the held-out part.
        look: Which look at this held-out part it was, of this task.
        link: The page of its run in the MLflow UI.
    """

    version: Version
    champion: Version | None
    alias: str
    outcome: Outcome
    verdict: Verdict
    comparisons: Mapping[str, Comparison]
    scores: Mapping[str, float]
    num_images: int
    look: int
    link: str

    @property
    def passed(self) -> bool:
        """Whether the alias moved, or would have moved."""
        return self.outcome != "refused"


def promote(
    name: str,
    *,
    version: int | None = None,
    sweep: str | None = None,
    run: str | None = None,
    alias: Literal["champion", "challenger"] = "champion",
    dry_run: bool = False,
    force: str | None = None,
) -> Promotion:
    """Puts a candidate to its gates, and moves the alias where it passes.

    Each call is a look at the held-out part: it is counted and recorded, a dry run too.

    Args:
        name: Of the registered model, by default the task's name.
        version: The candidate's number; or
        sweep: Id of the sweep whose winner it is; or
        run: Id of the run that logged it. Default: the version registered last.
        alias: `champion`, or `challenger`, for which the checks against the champion are told but
            not required.
        dry_run: Score and judge, and move nothing.
        force: The reason for which a person overrules the checks that failed; those without which
            a comparison has no meaning stay in force.

    Raises:
        UnknownName: No such registered model, version or sweep.
        ConfigError: The candidate is the champion already, or what is forced cannot be.
        DataError: The data cannot be read.
        Overtaken: Another process promoted in the meantime; nothing has changed.
    """
    if force is not None and not force.strip():
        raise ConfigError("`force` needs a reason, but it is empty. Say why, for the trail.")
    chosen = candidate(name, version=version, sweep=sweep, run=run)
    registry = Registry(settings.tracking_uri())
    champion = registry.by_alias(name, CHAMPION)
    if champion is not None and champion.number == chosen.number:
        raise ConfigError(
            f"a candidate is not the champion, but {chosen.uri} is. Name another version."
        )
    tracker = tracker_of(registry, name)
    plan = stored_plan(tracker.get(chosen.run_id))
    data = plan.objective.task.read(plan.experiment.data)
    held = plan.objective.task.held_out(data)[1]
    tags = {
        "held_out_digest": held.digest,
        "data_digest": data.digest,
        "data": data.name,
        "alias": alias,
        "dry_run": str(dry_run).lower(),
        "reason": force or "",
        "primary": plan.objective.task.primary,
        "objective": chosen.tags["objective"],
    }
    entry = open_entry(tracker, "promotion", chosen, champion, tags)
    with settled_on_error(tracker, entry):
        look = looks(tracker, held.digest)  # with this one: two at once may have the same number
        entry.set_tags({"look": look})
        entry.log_dataset(held, "held-out")
        evidence, scores = _evidence(tracker, plan, data, held, chosen, champion)
        verdict = judge(plan.experiment.gates, evidence, against=alias == CHAMPION)
        outcome = _outcome(verdict, dry_run=dry_run, force=force)
        link = f"{ui_address(tracker.uri)}/{run_page(tracker, entry.id)}"
        found = Promotion(
            chosen, champion, alias, outcome, verdict, evidence.comparisons, scores, len(held),
            look, link,
        )  # fmt: skip
        _log_verdict(entry, found, force or "")
        if outcome in MOVED:
            _move(registry, entry, found)
        entry.set_tags({"outcome": outcome})
        entry.end("FINISHED")
    if outcome in MOVED:
        _tell_version(tracker, registry, plan, found, entry.id)
        refresh(tracker)
    told = {"event": "promotion", "model": name, "version": chosen.number, "alias": alias}
    failed = [check.rule for check in verdict.failed]
    event = {**told, "outcome": outcome, "failed": failed, "reason": force or "", "link": link}
    tracker.amend(entry.id).set_tags({"notified": notify(event)})
    return found


def _outcome(verdict: Verdict, *, dry_run: bool, force: str | None) -> Outcome:
    if verdict.passed:
        return "would_pass" if dry_run else "promoted"
    return "forced" if force and verdict.forceable and not dry_run else "refused"


def _evidence(
    tracker: MlflowTracker,
    plan: Plan,
    data: Dataset,
    held: Dataset,
    chosen: Version,
    champion: Version | None,
) -> tuple[Evidence, dict[str, float]]:
    """All that is measured, and the candidate's scores with the ends of their intervals."""
    task = plan.objective.task
    integrity = _integrity(tracker, data, held, chosen, champion)
    mine, answers = _side(tracker, held, chosen)
    theirs, comparisons = None, {}
    if champion is not None and _same_labels(champion, held):
        theirs, other = _side(tracker, held, champion)
        for name, gate in complete(plan.experiment.gates, task.primary).items():
            if gate.compares and name not in (*RECORDED, BY_CLASS, BY_GROUP):
                comparisons[name] = task.compare(answers, other, held, name)
    elif champion is not None:
        theirs = Side(champion.uri, {})
    ends = interval_metrics(task.intervals(answers, held)) if task.intervals else {}
    scores = {name: value for name, value in mine.numbers.items() if name not in RECORDED}
    evidence = Evidence(task.primary, task.minimized, mine, theirs, comparisons, integrity)
    return evidence, {**scores, **ends}


def _side(tracker: MlflowTracker, held: Dataset, version: Version) -> tuple[Side, Answers]:
    objective = load_objective(version.tags["objective"])
    answers = Answers.of(objective.model.load(tracker.model_weights(version.uri)), held)
    task = objective.task
    tags = version.tags
    recorded = {n: float(tags[recorded_tag(n)]) for n in RECORDED if recorded_tag(n) in tags}
    numbers = {**recorded, **task.score(answers, held)}
    by_class, by_group = task.by_class(answers, held), task.by_group(answers, held)
    return Side(version.uri, numbers, by_class, by_group), answers


def _same_labels(version: Version, held: Dataset) -> bool:
    return tuple(json.loads(version.tags.get("classes", "[]"))) == held.classes


def _integrity(
    tracker: MlflowTracker,
    data: Dataset,
    held: Dataset,
    chosen: Version,
    champion: Version | None,
) -> list[Check]:
    """What must hold whatever the scores say."""
    tags = chosen.tags
    kind = tags.get("split.kind", "unknown")
    checks = [
        Check("the label set is the data's", _same_labels(chosen, held), ", ".join(held.classes),
              forceable=False),
        Check("the held-out part is the one kept from training",
              tags.get("held_out_digest") == held.digest, held.digest[:12], forceable=False),
        Check("no protocol trained on held-out images", "protocol.paper" not in tags,
              tags.get("protocol.paper", "none"), forceable=False),
        _parity_check(tracker, chosen),
        Check("the data is that of training", tags.get("data_digest") == data.digest,
              data.digest[:12]),
        Check("the split does not leak", tags.get("split.leaky") == "false", f"by {kind}"),
        Check("made by committed code", tags.get("git.dirty") == "false",
              tags.get("mlflow.source.git.commit", "")[:12] or "no repository", required=False),
    ]  # fmt: skip
    if champion is not None:
        before = champion.tags
        checks += [
            Check("the champion has the same label set", _same_labels(champion, held),
                  before.get("classes", "unknown"), forceable=False),
            Check("the champion was kept from the same held-out part",
                  before.get("held_out_digest") == held.digest,
                  before.get("held_out_digest", "unknown")[:12]),
            Check("the champion was trained on the same data",
                  before.get("data_digest") == data.digest,
                  before.get("data_digest", "unknown")[:12]),
            Check("the champion had the same training split",
                  before.get("split_digest") == tags.get("split_digest"),
                  f"{before.get('split.kind', 'unknown')} and {kind}", required=False),
        ]  # fmt: skip
    return checks


def _parity_check(tracker: MlflowTracker, chosen: Version) -> Check:
    rule = "the reloaded model predicts as the live one did"
    try:
        found = parity(tracker, chosen.uri)
    except ModelError as error:
        return Check(rule, False, str(error), forceable=False)
    told = f"largest difference {found.difference:.2g}, of {found.tolerance:g} allowed"
    return Check(rule, found.holds, told, forceable=False)


def _log_verdict(entry: Run, found: Promotion, reason: str) -> None:
    """The verdict in tags, metrics, a table and JSON: before anything moves."""
    finite = {name: value for name, value in found.scores.items() if math.isfinite(value)}
    entry.log_metrics(
        {n if n.startswith("ci/") else f"held_out/{n}": value for n, value in finite.items()}
    )
    entry.log_metrics(
        {f"champion_difference/{name}": c.difference for name, c in found.comparisons.items()}
    )
    document = {
        **_told(found.version, found.champion, reason),
        "alias": found.alias,
        "decided": found.outcome,
        "look": found.look,
        "num_images": found.num_images,
        "checks": [asdict(check) for check in found.verdict.checks],
        "comparisons": {name: asdict(c) for name, c in found.comparisons.items()},
        "scores": found.scores,
    }
    entry.log_text(json.dumps(document, indent=1), VERDICT)
    failed = json.dumps([check.rule for check in found.verdict.failed])
    entry.set_tags({"failed": failed, "mlflow.note.content": verdict_note(found)})
    entry.flush()


def _told(version: Version, champion: Version | None, reason: str) -> dict[str, object]:
    """What is said of any entry: which versions, who, when and why."""
    return {
        "version": version.uri,
        "champion": champion.uri if champion else None,
        "who": this_user(),
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "reason": reason,
    }


def verdict_note(found: Promotion) -> str:
    """The verdict in Markdown."""
    before = found.champion.uri if found.champion else "no champion"
    lines = [
        f"Decided: **{found.outcome}**, {found.version.uri} as `{found.alias}`, against {before}, "
        f"on {found.num_images} held-out images. Look {found.look} at them.",
        "",
    ]
    rows = []
    for check in found.verdict.checks:
        held = "ok" if check.passed else ("FAILED" if check.required else "no")
        rows.append((check.rule, held, check.found))
    return "\n".join([*lines, *markdown_table(["check", "", "found"], rows)])


def _move(registry: Registry, entry: Run, found: Promotion) -> None:
    """Moves the alias; the trail says so before, in case the process dies in between."""
    entry.set_tags({"outcome": MOVING, "intent": found.outcome})
    if found.alias == CHALLENGER:
        registry.point(found.version, CHALLENGER)
    else:
        registry.crown(found.version, seen=found.champion)


def _tell_version(
    tracker: MlflowTracker, registry: Registry, plan: Plan, found: Promotion, entry_id: str
) -> None:
    """The held-out scores on the version itself: its card and tags."""
    tags, record = found.version.tags, tracker.get(found.version.run_id)
    if tags.get(OF_MODEL) != record.tags.get(MODEL):  # the sweep has had another winner since
        record = replace(record, metrics=tracker.get(tags[MODEL_RUN]).metrics)
    params = {n.removeprefix("param."): v for n, v in tags.items() if n.startswith("param.")}
    card = model_card(found.version.uri, record, plan.experiment, params, found.scores)
    registry.describe(found.version, card)
    primary = plan.objective.task.primary
    score = f"{found.scores[primary]:.4f}"
    registry.set_tags(
        found.version,
        {f"held_out.{primary}": score, f"{found.alias}.by": entry_id, "outcome": found.outcome},
    )


def rollback(name: str, *, reason: str) -> Version:
    """Makes the previous champion the champion again; a second rollback undoes the first.

    Args:
        name: Of the registered model.
        reason: For the trail.

    Returns:
        The champion.

    Raises:
        UnknownName: No such registered model.
        ConfigError: There is no previous champion, or no reason.
        Overtaken: The champion changed in the meantime.
    """
    if not reason.strip():
        raise ConfigError("a rollback needs a reason, but it is empty. Say why, for the trail.")
    registry = Registry(settings.tracking_uri())
    champion, previous = (registry.by_alias(name, alias) for alias in (CHAMPION, PREVIOUS))
    if previous is None or previous == champion:  # a promotion that was killed has named it
        raise ConfigError(
            f"a rollback needs a version with the alias {PREVIOUS!r} that is not the champion, but "
            f"{name!r} has none. Choose a version from `hemaml history`, and promote it."
        )
    tracker = tracker_of(registry, name)
    entry = open_entry(tracker, "rollback", previous, champion, {"reason": reason})
    with settled_on_error(tracker, entry):
        entry.log_text(json.dumps(_told(previous, champion, reason), indent=1), VERDICT)
        entry.set_tags({"outcome": MOVING, "intent": "rolled_back"})
        registry.crown(previous, seen=champion)
        entry.set_tags({"outcome": "rolled_back"})
        entry.end("FINISHED")
    refresh(tracker)
    before = None if champion is None else champion.number
    event = {"event": "rollback", "model": name, "version": previous.number, "before": before}
    tracker.amend(entry.id).set_tags({"notified": notify({**event, "reason": reason})})
    return previous
