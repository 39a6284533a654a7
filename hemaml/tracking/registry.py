"""Registered models: versions, aliases, and the one way an alias moves.

MLflow offers no compare-and-set, so a move is made under a claim and only if the alias still means
what the mover saw. On an embedded store the claim is a file lock, which a kill frees. On a server
it is a tag of the registered model: written where there is none, read again after `SETTLE_S`, and
given up by whoever does not find its own. That is safe as long as a tag takes less than
`SETTLE_S` to be written; one that is older than `STALE_S` belongs to a process that died.
"""

import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from hemaml.core.errors import ConfigError, Overtaken, UnknownName
from hemaml.core.tracker import REGISTERED
from hemaml.tracking.credentials import use_kept
from hemaml.tracking.mlflow_run import store_errors, write_shared
from hemaml.tracking.outages import DENIED
from hemaml.tracking.schema import check_embedded

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
OF_MODEL = "of_model"
"""Tag of a version: the URI of the logged model that it was made of."""
CLAIM = "hemaml.claim"
SETTLE_S = 2.0
STALE_S = 120.0
LOCK_WAIT_S = 30.0
"""A move takes milliseconds; whoever waits longer meets a process that hangs."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a registered model.

    Attributes:
        name: Of the registered model.
        number: Of the version, from 1.
        run_id: The run that logged it.
        aliases: Sorted.
        tags: As set.
        created_ms: Milliseconds since 1970.
        card: Its description, in Markdown.
    """

    name: str
    number: int
    run_id: str
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    created_ms: int = 0
    card: str = ""

    @property
    def uri(self) -> str:
        """`models:/name/version`."""
        return f"{REGISTERED}{self.name}/{self.number}"


class Registry:
    """The registered models of one store. Safe to use from many processes, one instance each."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        use_kept(uri)
        if uri.startswith("sqlite:///"):
            with store_errors(uri):
                check_embedded(uri)
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)

    def names(self) -> list[str]:
        """Names of all registered models, sorted."""
        with store_errors(self.uri):
            names, token = [], None
            while True:
                page = self._client.search_registered_models(page_token=token)
                names += [model.name for model in page]
                token = page.token
                if not token:
                    return sorted(names)

    def versions(self, name: str) -> list[Version]:
        """All versions of a registered model, oldest first.

        Raises:
            UnknownName: There is no such model.
        """
        aliases = self._aliases(name)
        with store_errors(self.uri):
            found, token = [], None
            while True:
                page = self._client.search_model_versions(f"name = '{name}'", page_token=token)
                found += [_version(version, aliases) for version in page]
                token = page.token
                if not token:
                    return sorted(found, key=lambda version: version.number)

    def version(self, name: str, number: int) -> Version:
        """One version. Raises `UnknownName`."""
        for version in self.versions(name):
            if version.number == number:
                return version
        known = [str(version.number) for version in self.versions(name)]
        raise UnknownName(f"version of {name}", str(number), known)

    def by_uri(self, uri: str) -> Version:
        """The version that `models:/name/version` means.

        Raises:
            UnknownName: There is no such model or version.
            ConfigError: The URI names no version.
        """
        name, _, number = uri.removeprefix(REGISTERED).partition("/")
        if not number.isdecimal():
            raise ConfigError(
                f"a registered model is models:/name@alias or models:/name/version, but got {uri!r}"
            )
        return self.version(name, int(number))

    def by_alias(self, name: str, alias: str) -> Version | None:
        """The version that an alias means, or None."""
        number = self._aliases(name).get(alias)
        return None if number is None else self.version(name, number)

    def of_model(self, name: str, run_id: str, model: str | None) -> Version | None:
        """The latest version of a model that a run logged, or None; also without such a name.

        A sweep that was resumed may have another winner, and with it another model, than before.
        """
        if name not in self.names():
            return None
        made = (version for version in self.versions(name) if version.run_id == run_id)
        found = [version for version in made if version.tags.get(OF_MODEL) == model]
        return found[-1] if found else None

    def set_tags(self, version: Version, tags: Mapping[str, object]) -> None:
        """Sets or replaces tags of a version."""
        with store_errors(self.uri):
            for key, value in tags.items():
                number = str(version.number)
                self._client.set_model_version_tag(version.name, number, key, str(value))

    def describe(self, version: Version, text: str) -> None:
        """Sets the version's description, in Markdown."""
        with store_errors(self.uri):
            self._client.update_model_version(version.name, str(version.number), text)

    def describe_model(self, name: str, text: str) -> None:
        """Sets the registered model's description, in Markdown."""
        with store_errors(self.uri):
            self._client.update_registered_model(name, text)

    def point(self, version: Version, alias: str) -> None:
        """Points an alias at a version, whatever it meant before; not for the champion."""
        assert alias not in (CHAMPION, PREVIOUS)
        with store_errors(self.uri):
            number = str(version.number)
            write_shared(
                lambda: self._client.set_registered_model_alias(version.name, alias, number)
            )

    def crown(self, version: Version, *, seen: Version | None) -> None:
        """Makes a version the champion, and the one it follows the previous one.

        The alias `previous` is set first and `champion` by one call, so that a kill at any moment
        leaves the old champion or the new one, never none.

        Args:
            version: The new champion.
            seen: The champion that the decision was made against, None where there was none.

        Raises:
            Overtaken: The champion is another by now; nothing has changed.
        """
        with self._claimed(version.name):
            now = self._aliases(version.name).get(CHAMPION)
            expected = None if seen is None else seen.number
            if now != expected:
                raise Overtaken(
                    f"a champion is replaced by who has seen it, but that of {version.name!r} was "
                    f"version {expected} and is version {now}. Look at it, then promote again."
                )
            with store_errors(self.uri):
                if seen is not None:
                    self._client.set_registered_model_alias(
                        version.name, PREVIOUS, str(seen.number)
                    )
                self._client.set_registered_model_alias(version.name, CHAMPION, str(version.number))

    def _aliases(self, name: str) -> dict[str, int]:
        with store_errors(self.uri):
            try:
                model = self._client.get_registered_model(name)
            except MlflowException as error:
                # A server with users does not tell a stranger to a name whether it is there.
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", DENIED):
                    raise
                if name in (known := self.names()):
                    raise
                raise UnknownName("registered model", name, known) from None
        return {alias: int(number) for alias, number in model.aliases.items()}

    @contextmanager
    def _claimed(self, name: str) -> Iterator[None]:
        """The right to move the aliases of a model, held by one process at a time."""
        if not self.uri.startswith("sqlite:///"):
            with self._claimed_by_tag(name):
                yield
            return
        database = Path(self.uri.removeprefix("sqlite:///"))
        lock = FileLock(f"{database}.{name}.lock", timeout=LOCK_WAIT_S)
        try:
            lock.acquire()
        except Timeout as error:
            raise ConfigError(
                f"aliases are moved by one process at a time, but another has held those of "
                f"{name!r} for {LOCK_WAIT_S:g} s. See which, end it, then promote again."
            ) from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _claimed_by_tag(self, name: str) -> Iterator[None]:
        mine = f"{time.time():.0f} {secrets.token_hex(8)}"
        with store_errors(self.uri):
            if (held := self._claim(name)) is not None and _age_s(held) < STALE_S:
                raise Overtaken(_held(name, held))
            try:
                self._client.set_registered_model_tag(name, CLAIM, mine)
            except MlflowException:  # two first writes at once: the database takes one of them
                if (held := self._claim(name)) is None:
                    raise
                raise Overtaken(_held(name, held)) from None
            time.sleep(SETTLE_S)
            if (held := self._claim(name)) != mine:
                raise Overtaken(_held(name, held))
        try:
            yield
        finally:
            with suppress(MlflowException):  # it goes stale
                self._client.delete_registered_model_tag(name, CLAIM)

    def _claim(self, name: str) -> str | None:
        tags: dict[str, str] = self._client.get_registered_model(name).tags
        return tags.get(CLAIM)


def _age_s(claim: str) -> float:
    return time.time() - float(claim.partition(" ")[0])


def _held(name: str, claim: str | None) -> str:
    return (
        f"aliases are moved by one process at a time, but those of {name!r} are claimed by "
        f"another ({claim}). Look at its champion in a moment, then promote again."
    )


def _version(version: ModelVersion, aliases: Mapping[str, int]) -> Version:
    number = int(version.version)
    return Version(
        name=version.name,
        number=number,
        run_id=version.run_id or "",
        aliases=tuple(sorted(alias for alias, target in aliases.items() if target == number)),
        tags=dict(version.tags),
        created_ms=version.creation_timestamp or 0,
        card=version.description or "",
    )
