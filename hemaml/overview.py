"""What a task's page in the MLflow UI says, and the pages that are worth opening.

The description of a task's experiment has its champions, and each question with its answer so far.
It is made anew of the record whenever a sweep, an evaluation or a promotion begins or ends.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from hemaml.core import settings
from hemaml.core.errors import StoreError
from hemaml.core.markdown import markdown_table
from hemaml.core.tracker import Record, Tracker
from hemaml.notes import counted, plus_minus, point_text
from hemaml.record import trackers
from hemaml.tracking.mlflow_tracker import MlflowTracker
from hemaml.tracking.registry import CHAMPION, Registry, Version
from hemaml.tracking.views import as_charts, model_page, run_page, task_page

NOTE = "mlflow.note.content"
MOST_CHARS = 20_000
"""Of a tag of an experiment, in MLflow."""
MOST_ROWS = 40
"""Questions shown: the page is for people."""
RECENT = 3
"""Sweeps of a task whose pages are named."""


@dataclass(frozen=True, slots=True)
class Links:
    """Pages of one thing in the UI.

    Attributes:
        name: What it is.
        pages: Name of a page to its address below the server's.
    """

    name: str
    pages: Mapping[str, str]


@contextmanager
def described(tracker: Tracker) -> Iterator[None]:
    """Keeps the task's description true after what is done inside, however that ends."""
    try:
        yield
    except BaseException:
        with suppress(StoreError):  # the fault itself, often
            refresh(tracker)
        raise
    refresh(tracker)


def refresh(tracker: Tracker) -> None:
    """Writes the description of a task's experiment.

    Any number of processes may do so at once: each looks again after it has written, so the last
    to write has seen all that the others recorded.
    """
    assert isinstance(tracker, MlflowTracker)
    written = None
    while (text := description(tracker)) != written:
        tracker.set_experiment_tag(NOTE, text)
        written = text


def description(tracker: MlflowTracker) -> str:
    """The description of a task in Markdown; its first words are what the list of tasks shows."""
    found = [run for kind in ("sweep", "evaluation") for run in tracker.find({"kind": kind})]
    asked = [run for run in found if "goals" in run.tags]
    asked.sort(key=lambda run: run.start_ms, reverse=True)
    rows = [_question(tracker, run) for run in asked[:MOST_ROWS]]
    told = [_champion_line(version) for version in champions(tracker)]
    head = "\n\n".join(told) or f"No champion yet; {rows[0][1] if rows else 'nothing was asked'}."
    while len(text := _page(head, rows, left_out=len(asked) - len(rows))) > MOST_CHARS:
        rows.pop()
    return text


def _page(head: str, rows: Sequence[Sequence[str]], left_out: int) -> str:
    if not rows:
        return head
    table = markdown_table(["question", "answer so far", "paper", "winner", "page"], rows)
    more = ["", f"And {left_out} earlier ones."] if left_out else []
    return "\n".join([head, "", *table, *more])


def champions(tracker: MlflowTracker) -> list[Version]:
    """The champions among the registered models of a task, by name."""
    registry = Registry(tracker.uri)
    found = [registry.by_alias(name, CHAMPION) for name in registry.names()]
    return [version for version in found if version and _task(version) == tracker.task]


def _task(version: Version) -> str:
    return version.tags.get("objective", "").partition(".")[0]


def _champion_line(version: Version) -> str:
    model = version.tags["objective"].partition(".")[2]
    held_out = [
        f", {key.removeprefix('held_out.')} {score} held out"
        for key, score in sorted(version.tags.items())
        if key.startswith("held_out.")
    ]
    page = model_page(version.name, version.number)
    return f"Champion {model}{''.join(held_out)}: [{version.name} v{version.number}]({page})"


def _question(tracker: MlflowTracker, run: Record) -> tuple[str, ...]:
    """A row: what was asked, what is known, the paper's figure, the winner, where to look."""
    tags = run.tags
    question = tags.get("question", tags["experiment"])
    goal = json.loads(tags["goals"])[0]["metric"]
    paper = tags.get(f"paper.{goal}", "")
    if tags["kind"] == "sweep":
        point = {k.removeprefix("best."): v for k, v in tags.items() if k.startswith("best.")}
        winner = point_text({name: _short(value) for name, value in point.items() if value != ""})
        place, metric, where = tags["view"], goal, "on validation"
    else:
        winner, place, metric = "as given", run_page(tracker, run.id), f"test/{goal}"
        where = f"on {counted(int(tags['splits']), 'test part')}"
    answer = tags.get("outcome", run.status.lower()).replace("_", " ")
    if metric in run.metrics:
        spread = run.metrics.get(f"{metric}_std", math.nan)
        state = "" if answer == "finished" else f" ({answer})"
        answer = f"{goal} {plus_minus(run.metrics[metric], spread)} {where}{state}"
    return question, answer, paper, winner, f"[{run.name}]({place})"


def _short(text: str) -> float | str:
    """A number from a tag as a number, so that it is shown short."""
    try:
        return int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError:
        return text


def links() -> list[Links]:
    """Pages of the tasks, their latest sweeps and their registered models, in the store in use."""
    found: list[Links] = []
    registry = Registry(settings.tracking_uri())
    newest = {name: registry.versions(name) for name in registry.names()}
    for tracker in trackers():
        sweeps = tracker.find({"kind": "sweep"})
        models = [name for name, of in newest.items() if of and _task(of[-1]) == tracker.task]
        if sweeps or models:
            found.append(Links(f"task {tracker.task}", {"all runs": task_page(tracker)}))
        found += [_sweep_links(run) for run in sweeps[-RECENT:]]
        found += [_model_links(name, newest[name]) for name in models]
    return found


def sweep_pages(view: str, compare: str = "") -> dict[str, str]:
    """What there is to see of a sweep, by name: its trials, charts, and the best side by side."""
    pages = {"trials": view, "charts": as_charts(view)}
    return {**pages, "best side by side": compare} if compare else pages


def _sweep_links(run: Record) -> Links:
    pages = sweep_pages(run.tags["view"], run.tags.get("compare", ""))
    return Links(f"sweep {run.name} ({run.tags['outcome']})", pages)


def _model_links(name: str, versions: Sequence[Version]) -> Links:
    pages = {"versions": model_page(name)}
    for version in versions:
        if CHAMPION in version.aliases:
            pages[f"champion (v{version.number})"] = model_page(name, version.number)
    return Links(f"registered model {name}", pages)
