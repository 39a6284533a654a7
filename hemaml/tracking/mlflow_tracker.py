"""MLflow as the record: explicit run ids, batched metrics, a store that is initialised once.

The fluent API is not used: it keeps a hidden current run, and marks a process that is told to
stop as failed. One `MlflowTracker` serves one task, whose experiment has the task's name.
"""

import gc
import hashlib
import json
import logging
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow.artifacts import download_artifacts
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.tracking import MlflowClient

from hemaml.core.errors import StoreError
from hemaml.core.provenance import origin
from hemaml.core.settings import cache_root
from hemaml.core.tracker import REGISTERED, RUN, Record, is_recorded, is_registered
from hemaml.tracking.credentials import use_kept
from hemaml.tracking.mlflow_run import MlflowRun, store_errors, write_shared
from hemaml.tracking.outages import first_contact, once
from hemaml.tracking.schema import check_embedded

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# A line for each run that ends, in the middle of the live table.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# Each table and version that it creates; faults with their tracebacks, which become `StoreError`s.
logging.getLogger("mlflow.store.model_registry.abstract_store").setLevel(logging.WARNING)
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

PAGE = 1000
"""Runs asked for at once."""
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Makes the UI open on runs, charts and models instead of chats."""
PARENT = "mlflow.parentRunId"
VERSIONS = "mlflow.modelVersions"
"""Tag of a logged model: the registered versions that were made of it."""
WEIGHTS = "weights"
"""Name, in a logged model, of the folder that a model was saved to."""
WITH_SPLIT = ("run", "sweep")
"""Kinds of runs that keep a model and the split that it was trained on."""
CANDIDATE = "candidate"
"""Alias of the version that was registered last."""


class MlflowTracker:
    """The runs of one task in an MLflow store; see `hemaml.core.tracker.Tracker`.

    Args:
        uri: Of the store.
        task: Names the experiment, which is made where there is none.
        met: Whether a server has answered the process that started this one.
    """

    def __init__(self, uri: str, task: str, *, met: bool = False) -> None:
        self.uri = uri
        self.task = task
        with store_errors(uri):
            if uri.startswith("sqlite:///"):
                self._client, self._experiment = _open_sqlite(uri, task)
            else:
                use_kept(uri)
                self._client = MlflowClient(tracking_uri=uri)
                with first_contact(uri, met=met):
                    self._experiment = _experiment_id(self._client, task, None)

    @property
    def experiment_id(self) -> str:
        """MLflow's id of the task's experiment."""
        return self._experiment

    @property
    def artifact_location(self) -> str:
        """Where the artifacts of new runs are kept."""
        with store_errors(self.uri):
            return str(self._client.get_experiment(self._experiment).artifact_location)

    def set_experiment_tag(self, name: str, value: str) -> None:
        """Sets or replaces a tag of the task's experiment."""
        with store_errors(self.uri):
            write_shared(lambda: self._client.set_experiment_tag(self._experiment, name, value))

    def start(self, name: str, tags: Mapping[str, object], parent: str | None = None) -> MlflowRun:
        """Opens a run below `parent`."""
        nesting = {PARENT: parent} if parent else {}
        told = {**origin(self.task, tags.get("experiment")), **tags, **nesting}
        texts = {key: str(value) for key, value in told.items()}
        with store_errors(self.uri):
            run_id = once(
                lambda more: (
                    self._client.create_run(
                        self._experiment, run_name=name, tags={**texts, **more}
                    ).info.run_id
                ),
                self._run_with,
            )
        return MlflowRun(self._client, self.uri, run_id)

    def _run_with(self, query: str) -> str | None:
        found = self._client.search_runs([self._experiment], query)
        return found[0].info.run_id if found else None

    def reopen(self, run_id: str) -> MlflowRun:
        """Goes on with a run, whatever its status."""
        with store_errors(self.uri):
            self._client.update_run(run_id, status="RUNNING")
        return MlflowRun(self._client, self.uri, run_id)

    def amend(self, run_id: str) -> MlflowRun:
        """Adds to a run, whether or not it has ended; its status stays, and when it ended."""
        return MlflowRun(self._client, self.uri, run_id)

    def get(self, run_id: str) -> Record:
        """The run as stored."""
        with store_errors(self.uri):
            return _record(self._client.get_run(run_id))

    def find(
        self,
        tags: Mapping[str, str],
        *,
        parent: str | None = None,
        limit: int | None = None,
        deleted: bool = False,
    ) -> list[Record]:
        """The runs with all these tags, oldest first; deleted ones only if they are asked for."""
        wanted = {**tags, **({PARENT: parent} if parent else {})}
        query = " and ".join(f"tags.{key} = '{value}'" for key, value in wanted.items())
        records: list[Record] = []
        token: str | None = ""
        with store_errors(self.uri), _uncollected():
            while token is not None and (limit is None or len(records) < limit):
                page = self._client.search_runs(
                    [self._experiment],
                    query,
                    ViewType.ALL if deleted else ViewType.ACTIVE_ONLY,
                    PAGE if limit is None else min(limit, PAGE),
                    ["attributes.start_time ASC"],
                    token or None,
                )
                records += [_record(run) for run in page]
                token = page.token or None
        return records[:limit]

    def last_step(self, run_id: str, metric: str) -> int:
        """The largest step logged of a metric, or -1."""
        with store_errors(self.uri):
            history = self._client.get_metric_history(run_id, metric)
        return max((point.step for point in history), default=-1)

    def curve(self, run_id: str, metric: str) -> tuple[list[int], list[float]]:
        """Steps and values of a metric, in order of the steps; empty where it was never logged."""
        with store_errors(self.uri):
            history = self._client.get_metric_history(run_id, metric)
        points = sorted((point.step, point.value) for point in history)
        return [step for step, _ in points], [value for _, value in points]

    def has_artifact(self, run_id: str, path: str) -> bool:
        """Whether a run has a file or folder of this path."""
        folder = path.rpartition("/")[0]
        with store_errors(self.uri):
            found = self._client.list_artifacts(run_id, folder or None)
        return any(file.path == path for file in found)

    def read_text(self, run_id: str, path: str) -> str:
        """A text artifact of a run."""
        with tempfile.TemporaryDirectory() as folder:
            return self.download(run_id, path, Path(folder)).read_text(encoding="utf-8")

    def download(self, run_id: str, path: str, folder: Path) -> Path:
        """Copies an artifact (a file or a folder) into `folder`; returns where it is."""
        with store_errors(self.uri):
            return Path(self._client.download_artifacts(run_id, path, str(folder)))

    def fixed_version(self, uri: str) -> str:
        """`models:/name@alias` as the `models:/name/version` that it means now; others as they are.

        Raises:
            StoreError: There is no such registered model or alias.
        """
        name, _, alias = uri.removeprefix(REGISTERED).partition("@")
        if not alias:
            return uri
        with store_errors(self.uri):
            version = self._client.get_model_version_by_alias(name, alias).version
        return f"{REGISTERED}{name}/{version}"

    def model_weights(self, uri: str) -> Path:
        """Folder of the weights of a recorded model, copied here once: they never change.

        Args:
            uri: `models:/name/version`, `models:/name@alias` or `runs:/id`.

        Raises:
            StoreError: There is no such model, or it was not logged by hemaml.
        """
        with store_errors(self.uri):
            # What names the model, whatever becomes of the store.
            source = self._weights_source(uri)
            target = cache_root() / "registered" / _digest(f"{self.uri} {source}")
            target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{target}.lock"):
                if not target.is_dir():
                    self._copy_weights(source, target)
        return target

    def objective_of(self, uri: str) -> str:
        """Name of the objective of a recorded model.

        Args:
            uri: `models:/name/version`, `models:/name@alias` or `runs:/id`.

        Raises:
            StoreError: There is no such model, or it was not logged by hemaml.
        """
        with store_errors(self.uri):
            tags = self._version(uri).tags if is_registered(uri) else self._run_of(uri).tags
            return str(tags["objective"])

    def trained_on(self, uri: str) -> frozenset[str]:
        """Digests of the images that a recorded model, and those it began from, learned from.

        Args:
            uri: `models:/name/version`, `models:/name@alias` or `runs:/id`.

        Raises:
            StoreError: There is no such model, or its run names no split.
        """
        with store_errors(self.uri):
            if is_registered(uri):
                version = self._version(uri)
                run = self.get(version.run_id)
                named = [v for name, v in version.tags.items() if name.startswith("param.")]
            else:
                run = self._run_of(uri)
                winner = run.tags.get("model_run")  # whose parameters a sweep's run does not have
                named = list((self.get(winner) if winner else run).params.values())
        older = {value for value in named if is_recorded(value)}
        return self._learned_from(run).union(*(self.trained_on(value) for value in older))

    def _learned_from(self, run: Record) -> frozenset[str]:
        """The training images of a run's model: in its own split, or in that of the run above."""
        own = run.tags["kind"] in WITH_SPLIT
        text = self.read_text(run.id if own else run.tags[PARENT], "split.json")
        # Of several folds, the model of the first is the one that is kept.
        index = int(run.tags["trial"]) if run.tags["kind"] == "split" else 0
        return frozenset(json.loads(text)["splits"][index]["train"]["contents"])

    def _version(self, uri: str) -> Any:
        name, _, number = self.fixed_version(uri).removeprefix(REGISTERED).partition("/")
        return self._client.get_model_version(name, number)

    def _run_of(self, uri: str) -> Record:
        return self.get(uri.removeprefix(RUN))

    def _weights_source(self, uri: str) -> str:
        """The address of a registered model, or the run whose artifacts have the weights."""
        if is_registered(uri):
            version = self._version(uri)
            return self._source(version.name, str(version.version))
        run = self._run_of(uri)
        return RUN + str(run.tags.get("model_run") or run.tags.get("reused_from") or run.id)

    def _copy_weights(self, source: str, target: Path) -> None:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            if source.startswith(RUN):
                self.download(source.removeprefix(RUN), WEIGHTS, Path(folder)).rename(target)
                return
            copied = self._copy_model(source, Path(folder))
            flavour = Model.load(copied).flavors["python_function"]
            (copied / flavour["artifacts"][WEIGHTS]["path"]).rename(target)

    def _source(self, name: str, version: str) -> str:
        return str(self._client.get_model_version_download_uri(name, version))

    def _copy_model(self, source: str, folder: Path) -> Path:
        return Path(download_artifacts(source, dst_path=str(folder), tracking_uri=self.uri))

    def download_model(self, uri: str, folder: Path) -> Path:
        """Copies a registered model into `folder`; returns where it is.

        Args:
            uri: `models:/name/version` or `models:/name@alias`.
            folder: Where there is room for it.

        Raises:
            StoreError: There is no such model.
        """
        name, _, version = self.fixed_version(uri).removeprefix(REGISTERED).partition("/")
        with store_errors(self.uri):
            return self._copy_model(self._source(name, version), folder)

    def register(self, run_id: str, model_uri: str, name: str, tags: Mapping[str, object]) -> str:
        """Makes a logged model a new version, and the candidate, of a registered one.

        Returns:
            `models:/name/version`.
        """
        texts = {key: str(value) for key, value in tags.items()}
        with store_errors(self.uri):
            with suppress(MlflowException):  # it exists, mostly
                self._client.create_registered_model(name)
            # Not by its `models:/` URI, which MLflow looks up in its global store.
            logged = self._client.get_logged_model(model_uri.removeprefix(REGISTERED))
            created = once(
                lambda more: self._client.create_model_version(
                    name, logged.artifact_location, run_id, {**texts, **more},
                    model_id=logged.model_id,
                ),
                lambda query: next(iter(self._client.search_model_versions(query)), None),
            )  # fmt: skip
            version = str(created.version)  # an embedded store has a number
            write_shared(lambda: self._client.set_registered_model_alias(name, CANDIDATE, version))
            # A server does so itself; without the tag the UI's table of models has no versions.
            known = json.loads(logged.tags.get(VERSIONS, "[]"))
            versions = json.dumps([*known, {"name": name, "version": version}])
            self._client.set_logged_model_tags(logged.model_id, {VERSIONS: versions})
        return f"{REGISTERED}{name}/{version}"


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collection, which costs two thirds of a read of a million rows."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _record(run: Any) -> Record:
    return Record(
        id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        params=dict(run.data.params),
        metrics={n: v for n, v in run.data.metrics.items() if v == v},  # NaN: undefined, or gone
        tags=dict(run.data.tags),
        start_ms=run.info.start_time or 0,
        end_ms=run.info.end_time or 0,
    )


def _open_sqlite(uri: str, task: str) -> tuple[MlflowClient, str]:
    """A client of an embedded store, which the first process creates.

    Processes that meet an empty SQLite file at once can break its schema for good, so the file
    lock covers creation and the first look. Write-ahead logging lets the UI read while trials
    write.
    """
    database = Path(uri.removeprefix("sqlite:///"))
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock"):
        if not database.exists():
            with sqlite3.connect(database) as connection:
                connection.execute("pragma journal_mode=wal")
            connection.close()
        check_embedded(uri)  # before MLflow, which would upgrade some tables without a backup
        client = MlflowClient(tracking_uri=uri)
        artifacts = database.parent.resolve() / "artifacts" / task
        return client, _experiment_id(client, task, artifacts.as_uri())


def _experiment_id(client: MlflowClient, task: str, artifacts: str | None) -> str:
    found = client.get_experiment_by_name(task)
    if found is None:
        try:
            created: str = client.create_experiment(task, artifacts, EXPERIMENT_TAGS)
            return created
        except MlflowException:  # on a server, another process may have been faster
            found = client.get_experiment_by_name(task)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise StoreError(
            f"the MLflow experiment must be active, but {task!r} is deleted. "
            "Restore it in the UI, or point MLFLOW_TRACKING_URI at another store."
        )
    experiment_id: str = found.experiment_id
    return experiment_id
