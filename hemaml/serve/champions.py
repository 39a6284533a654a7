"""The models that answer: those that aliases of the registry mean now, each loaded once.

A thread looks at the registry again and again. A newer version is loaded and proven beside the old
one, and takes its place by one assignment; requests that began with the old one end with it. While
the registry is away, and while a newer version cannot be loaded, the old one goes on, and that is
told. An alias that was taken away takes its model away.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Event, Thread
from typing import Protocol

from hemaml.core.errors import ConfigError, HemamlError, UnknownName
from hemaml.serve.answers import Answering, Loaded, ModelFacts, RegistryState
from hemaml.tracking.opened_model import OpenedModel
from hemaml.tracking.outages import briefly
from hemaml.tracking.registry import Version

LOG = logging.getLogger("hemaml.serve")
AGAIN_S = 60.0
"""Until a version that could not be loaded is tried again."""


@dataclass(frozen=True, slots=True)
class Served:
    """A version in memory, and what is told of it."""

    version: Version
    opened: OpenedModel
    facts: ModelFacts

    @property
    def answering(self) -> Answering:
        """What answers say of their model."""
        return Answering(name=self.facts.name, version=self.facts.version, uri=self.facts.uri)


class Store(Protocol):
    """What is asked of the registry; see `hemaml.serve.registered`."""

    def wanted(self) -> Sequence[Version]:
        """The versions that are to answer now, one of a name. Raises `StoreError`."""

    def opened(self, version: Version) -> OpenedModel:
        """A version in memory. Raises `StoreError`, `ModelError`."""

    def facts(self, version: Version, opened: OpenedModel) -> ModelFacts:
        """What is told of a version. Raises `StoreError`."""


@dataclass(slots=True)
class _Failure:
    number: int
    reason: str
    when: float = field(default_factory=time.monotonic)

    def age_s(self) -> float:
        return time.monotonic() - self.when


class Champions:
    """The models that answer now. Any thread may read; one thread looks.

    Args:
        store: The registry.
        look_every: Seconds between looks.
    """

    def __init__(self, store: Store, look_every: float) -> None:
        self._store, self._look_every = store, look_every
        self._served: dict[str, Served] = {}  # replaced as a whole, never changed
        self._failures: dict[str, _Failure] = {}
        self._problem: str | None = None
        self._seen = time.monotonic()
        self._ended = Event()
        self._thread = Thread(target=self._watch, name="registry", daemon=True)

    def start(self) -> None:
        """Loads what there is, and goes on looking.

        Raises:
            StoreError: The registry is away: there would be nothing to answer with.
        """
        self._look()
        self._thread.start()

    def close(self) -> None:
        """Looks no more."""
        self._ended.set()
        self._thread.join()

    def all(self) -> list[Served]:
        """All that answer, by name."""
        served = self._served
        return [served[name] for name in sorted(served)]

    def get(self, name: str | None) -> Served:
        """The model of a name; of no name, where there is one alone.

        Raises:
            UnknownName: It is not served.
            ConfigError: No name, and several are served or none.
        """
        served = self._served
        if name:
            if name not in served:
                raise UnknownName("model", name, served)
            return served[name]
        if len(served) != 1:
            told = ", ".join(sorted(served)) or "none is served"
            raise ConfigError(f"a request names its model, but has none. Known: {told}.")
        return next(iter(served.values()))

    def loaded(self) -> list[Loaded]:
        """The versions that answer, and what keeps newer ones from it."""
        failures = dict(self._failures)
        return [
            Loaded(**one.answering.model_dump(), problem=_reason(failures.get(one.facts.name)))
            for one in self.all()
        ]

    def registry(self) -> RegistryState:
        """How the last look went, and which models do not answer at all."""
        problem, since = self._problem, time.monotonic() - self._seen
        unserved = [f.reason for n, f in dict(self._failures).items() if n not in self._served]
        told = "; ".join(filter(None, [problem, *unserved])) or None
        return RegistryState(reachable=problem is None, seconds_since=since, problem=told)

    def _watch(self) -> None:
        while not self._ended.wait(self._look_every):
            try:
                self._look()
            except HemamlError as error:
                if self._problem is None:
                    LOG.warning("the registry is away, its models go on: %s", error)
                self._problem = str(error)

    def _look(self) -> None:
        with briefly():
            wanted = {version.name: version for version in self._store.wanted()}
            for name, version in wanted.items():
                self._take(name, version)
            gone = self._served.keys() - wanted.keys()
        for name in gone:
            LOG.warning("%s answers no more: its alias was taken away", name)
        self._served = {name: one for name, one in self._served.items() if name in wanted}
        self._failures = {name: f for name, f in self._failures.items() if name in wanted}
        self._seen, self._problem = time.monotonic(), None

    def _take(self, name: str, version: Version) -> None:
        """Brings one model up to date, or notes why it is not."""
        now, failure = self._served.get(name), self._failures.get(name)
        if now is not None and now.version == version:
            self._failures.pop(name, None)
            return
        if failure and failure.number == version.number and failure.age_s() < AGAIN_S:
            return
        try:
            served = self._loaded(now, version)
        except Exception as error:  # whatever a version raises, the one before goes on
            known = isinstance(error, HemamlError)
            LOG.error("%s cannot be loaded: %s", version.uri, error, exc_info=not known)
            self._failures[name] = _Failure(version.number, f"{version.uri}: {error}")
            return
        self._failures.pop(name, None)
        self._served = {**self._served, name: served}
        if now is None or now.version.number != version.number:
            LOG.info("%s answers for %s", version.uri, name)

    def _loaded(self, now: Served | None, version: Version) -> Served:
        """The version in memory; one that is there already is told of anew."""
        if now is not None and now.version.number == version.number:
            return replace(now, version=version, facts=self._store.facts(version, now.opened))
        opened = self._store.opened(version)
        return Served(version, opened, self._store.facts(version, opened))


def _reason(failure: _Failure | None) -> str | None:
    return failure.reason if failure else None
