"""What a sweep shows while it runs: a live table on a terminal, plain lines elsewhere.

Where `CI` is set nobody watches: nothing is shown, unless lines are asked for.
"""

import os
import sys
import time
from collections import Counter
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hemaml.core.gpus import gpu_use
from hemaml.core.search import Event
from hemaml.core.task import Direction
from hemaml.core.types import Point
from hemaml.notes import counted

Row = tuple[int, Point, str, float | None, float, str]
"""Number, point, ending, value, seconds and note of a trial that has ended."""
SHOWN = 12
STYLES = {"finished": "green", "pruned": "yellow", "running": "cyan", "over_budget": "yellow"}


class LiveView:
    """Shows events of a sweep; pass it as `watch`, inside a `with`.

    Args:
        title: Shown above.
        metric: Name of the first goal.
        direction: Of the first goal.
        trials: How many the sweep shall make.
        plain: Lines instead of a table, whatever the output is.
    """

    def __init__(
        self, title: str, metric: str, direction: Direction, trials: int, *, plain: bool = False
    ) -> None:
        self.title = title
        self.metric = metric
        self.sign = 1 if direction == "maximize" else -1
        self.trials = trials
        self.console = Console()
        on_terminal = sys.stdout.isatty() and self.console.is_terminal
        watched = not os.environ.get("CI")
        self.plain = plain or (watched and not on_terminal)
        self.is_live = watched and on_terminal and not plain
        self.running: dict[int, tuple[Point, int, float | None, float]] = {}
        self.ended: list[Row] = []
        self.best: tuple[int, float] | None = None
        self.counts: Counter[str] = Counter()
        self.earlier = 0
        self.started = time.monotonic()
        self._live = Live(console=self.console, get_renderable=self._table, refresh_per_second=4)

    def __enter__(self) -> Self:
        if self.is_live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.is_live:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Takes one event."""
        now = time.monotonic()
        match event.kind:
            case "earlier":
                self._count(event, 0.0, None)
                self.earlier += 1
            case "started":
                self.running[event.number] = (event.point, 0, None, now)
            case "reported":
                point, _, _, since = self.running[event.number]
                self.running[event.number] = (point, event.step, event.value, since)
            case "lost":
                self.running.pop(event.number, None)
                self._say(f"trial {event.number}: its worker died; it will be continued")
            case "ended":
                self._end(event, now)
            case "confirming":
                doing = f"retraining the winner over {counted(event.number, 'seed')}"
                self.title += f": {doing}"
                self._say(f"{doing}: {_point(event.point)}")

    def _end(self, event: Event, now: float) -> None:
        _, _, last, since = self.running.pop(event.number, (event.point, 0, None, now))
        _, _, ending, value, seconds, note = self._count(event, now - since, last)
        shown = "" if value is None else f" {self.metric}={value:.4f}"
        tail = f" ({note})" if note else ""
        self._say(
            f"[{len(self.ended)}/{self.trials}] trial {event.number} {ending}{shown} "
            f"{_point(event.point)} {seconds:.1f}s{tail}"
        )

    def _count(self, event: Event, seconds: float, last: float | None) -> Row:
        """Adds a trial that has ended to the table, and to the best where it is."""
        outcome = event.outcome
        assert outcome is not None
        value = outcome.values[0] if outcome.values else last
        self.counts[outcome.ending] += 1
        note = "same as an earlier trial" if outcome.reused_from else outcome.reason
        row = (event.number, event.point, outcome.ending, value, seconds, note)
        self.ended.append(row)
        if outcome.values and (
            self.best is None or self.sign * outcome.values[0] > self.sign * self.best[1]
        ):
            self.best = (event.number, outcome.values[0])
        return row

    def _say(self, line: str) -> None:
        if self.plain:
            print(line, flush=True)

    def _table(self) -> Group:
        table = Table(expand=True, box=None, pad_edge=False)
        for name, justify in (
            ("trial", "right"), ("state", "left"), (self.metric, "right"), ("step", "right"),
            ("time", "right"), ("point", "left"),
        ):  # fmt: skip
            table.add_column(name, justify=justify, no_wrap=name != "point")  # type: ignore[arg-type]
        for number, point, ending, value, seconds, note in self.ended[-SHOWN:]:
            best = self.best is not None and self.best[0] == number
            text = f"{_point(point)}  {note}" if note else _point(point)
            table.add_row(
                f"{'★ ' if best else ''}{number}", Text(ending, STYLES.get(ending, "red")),
                _number(value), "", f"{seconds:.0f}s", Text(text), style="bold" if best else "",
            )  # fmt: skip
        now = time.monotonic()
        for number, (point, step, value, since) in sorted(self.running.items()):
            table.add_row(
                str(number), Text("running", "cyan"), _number(value), str(step),
                f"{now - since:.0f}s", _point(point),
            )  # fmt: skip
        return Group(Text(self.title, "bold"), self._summary(), table)

    def _summary(self) -> Table:
        bar = ProgressBar(total=self.trials, completed=len(self.ended), width=30)
        best = f"best {self.best[1]:.4f} (trial {self.best[0]})" if self.best else "no result yet"
        counts = ", ".join(f"{count} {ending}" for ending, count in sorted(self.counts.items()))
        grid = Table.grid(padding=(0, 2))
        done = f"{len(self.ended)}/{self.trials}"
        gpus = ", ".join(map(str, gpu_use()))
        grid.add_row(bar, done, f"{len(self.running)} running", counts, best, self._eta(), gpus)
        return grid

    def _eta(self) -> str:
        done = len(self.ended) - self.earlier  # what a resumed sweep had took no time of now
        if not done:
            return "ETA ?"
        left = max(0, self.trials - len(self.ended))
        seconds = (time.monotonic() - self.started) / done * left
        return f"ETA {seconds / 60:.0f} min" if seconds > 90 else f"ETA {seconds:.0f} s"


def _point(point: Point) -> str:
    return " ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in point.items()
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
