"""A Ray of one's own, on this machine alone, or a cluster that runs already."""

import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray._private import ray_constants
from ray._private import worker as ray_worker
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hemaml.core.errors import ConfigError, StoreError
from hemaml.core.sweep import Sweep

LOCAL_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Where it is 0, Ray's servers listen on the loopback address; elsewhere they do on all."""

LOOPBACK = {"127.0.0.1", "localhost", "::1"}
ANSWER_S = 300.0
"""What a node may take to read a data set and say what it found."""
PROBE_S = 2.0
Nodes = list[dict[str, Any]]
"""Ray's description of each."""
Result = TypeVar("Result")

# What matters is told by `watch`; Tune's own words name files that nobody shall use.
for name in ("ray.tune", "ray._private.worker", "ray._private.authentication"):
    logging.getLogger(name).setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Share:
    """What one trial gets of a machine: processors, GPUs."""

    cpu: float
    gpu: float


@contextmanager
def connected(sweep: Sweep) -> Iterator[Nodes]:
    """The nodes to search on: of the cluster at `sweep.address`, else this machine as one.

    A connection that the caller has made before is used, and left open.

    Raises:
        StoreError: No cluster answers at the address.
        ConfigError: The caller's connection is to another one, or whoever reaches it may use it.
    """
    if ray.is_initialized():
        _check_connection(sweep.address)
        yield alive_nodes()
        return
    if sweep.address is None:
        wanted = math.ceil(sweep.workers * (sweep.resources.cpu or 1))
        start(num_cpus=max(os.cpu_count() or 1, wanted))
    else:
        join(sweep.address)
    try:
        yield alive_nodes()
    finally:
        ray.shutdown()


def start(*, num_cpus: int, num_gpus: int | None = None) -> None:
    """Ray on this machine, for this process alone; it ends with the process, even by a kill.

    It asks for a token, Ray's default: the loopback address is open to all users of a machine.

    Args:
        num_cpus: To be given to trials, whatever the machine has.
        num_gpus: Likewise; default: as many as there are.
    """
    _listen(everywhere=False)
    with _own_signals():
        ray.init(
            address="local",
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )


def join(address: str) -> None:
    """Connects to a cluster that runs.

    Raises:
        StoreError: None answers there, or not to us.
        ConfigError: Other machines can reach it, and it need not be asked with a token.
    """
    host = address.removeprefix("ray://").rpartition(":")[0]
    _listen(everywhere=host not in LOOPBACK)  # else Ray would ask for it at another address
    try:
        with _own_signals():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ImportError, RuntimeError, ValueError, RayError) as error:
        raise StoreError(
            f"a Ray cluster must answer at `address`, but {address!r} gave: {_first_line(error)} "
            f"{_advice(address)}"
        ) from error
    try:
        _check_token(alive_nodes())
    except BaseException:
        ray.shutdown()
        raise


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keeps SIGTERM with the process: Ray would end at once, and a sweep's record stay open."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _advice(address: str) -> str:
    """What to do where no cluster answers; Ray does not say that a token was refused."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(PROBE_S)
        try:
            probe.connect((host, int(port)))
        except (OSError, ValueError):
            return "Start one with `ray start --head`, or leave the address out: this machine."
    return (
        "Something listens there: give the token of its head (RAY_AUTH_MODE=token, and "
        "RAY_AUTH_TOKEN or ~/.ray/auth_token) and use its version of Ray."
    )


def _check_connection(address: str | None) -> None:
    """Raises `ConfigError` where the process is connected to another cluster than is asked for.

    A client's `ray://` address is believed: it says nothing of the cluster's own.
    """
    if address in (None, "auto") or address.startswith("ray://"):
        return
    host, _, port = address.rpartition(":")
    if host in LOOPBACK:
        host = alive_nodes()[0]["NodeManagerAddress"]  # as Ray itself takes it
    if f"{host}:{port}" != (here := ray.get_runtime_context().gcs_address):
        raise ConfigError(
            f"`address` must be that of the cluster in use, {here}, where this process has called "
            f"`ray.init`, but got {address!r}. Leave it out, or call `ray.shutdown()` before."
        )


def _check_token(nodes: Nodes) -> None:
    """Whoever reaches Ray's ports can run code as us: on a network it must ask for a token.

    What this process would send says nothing: a cluster that asks for none takes a token as well.
    """
    if {node["NodeManagerAddress"] for node in nodes} <= LOOPBACK:
        return
    answers = on_each_node(is_token_auth_enabled)
    if unsafe := [name for name, asks in answers if asks is not True]:
        raise ConfigError(
            "a Ray cluster that other machines can reach must ask for a token, but "
            f"{', '.join(unsafe)} did not say so. Run `ray get-auth-token --generate`, copy "
            "~/.ray/auth_token to each node, and start Ray there with RAY_AUTH_MODE=token."
        )


def machines(nodes: Nodes) -> set[tuple[str, str]]:
    """The machines that the nodes are on, by host name and address."""
    return {(node["NodeManagerHostname"], node["NodeManagerAddress"]) for node in nodes}


def check_shared(nodes: Nodes, *, study_storage: str, tracking_uri: str, artifacts: str) -> None:
    """Raises `ConfigError` where nodes on several machines would write to one machine's files.

    Args:
        nodes: As Ray describes them.
        study_storage: Of the study.
        tracking_uri: Of MLflow.
        artifacts: Where MLflow keeps the artifacts of a task.
    """
    num = len(machines(nodes))
    if num < 2:
        return
    where = f"the cluster has {num} machines and"
    if not tracking_uri.startswith(("http://", "https://")):
        raise ConfigError(
            f"on more than one machine the record needs an MLflow server, but {where} "
            f"MLFLOW_TRACKING_URI is {_without_secret(tracking_uri)}. Start `mlflow server "
            "--backend-store-uri postgresql://... --artifacts-destination FOLDER --host HOST "
            "--allowed-hosts HOST:5000`, and set MLFLOW_TRACKING_URI=http://HOST:5000."
        )
    if "://" not in study_storage or study_storage.startswith("sqlite"):
        raise ConfigError(
            f"on more than one machine the study needs a database server, but {where} "
            f"HEMAML_STUDY_STORAGE is {_without_secret(study_storage)}. Start PostgreSQL, and set "
            "HEMAML_STUDY_STORAGE=postgresql+psycopg://USER:PASSWORD@HOST/DATABASE."
        )
    if "://" not in artifacts.replace(":/", "://", 1) or artifacts.startswith("file:"):
        raise ConfigError(
            f"on more than one machine artifacts must go through the MLflow server, but {where} "
            f"they are kept in {artifacts}. Start `mlflow server` with --artifacts-destination "
            "instead of --default-artifact-root, and begin with an empty database."
        )


def _without_secret(location: str) -> str:
    return location.rpartition("@")[2]


def on_each_node(look: Callable[[], Result]) -> list[tuple[str, Result | RayError]]:
    """What a function finds on each node, or what went wrong there, by the node's name."""
    task = ray.remote(num_cpus=0, max_retries=0)(lambda: look())
    nodes = alive_nodes()
    asked = [
        task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in nodes
    ]
    return [(_name(node), _answer(reference)) for node, reference in zip(nodes, asked, strict=True)]


def _name(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} {node['NodeManagerAddress']} {node['NodeID'][:6]}"


def _answer(reference: Any) -> Any:
    try:
        return ray.get(reference, timeout=ANSWER_S)
    except RayError as error:
        return error


def _listen(*, everywhere: bool) -> None:
    # Ray reads the variable at its import; processes that it starts read it again.
    os.environ[LOCAL_ONLY] = str(int(everywhere))
    ray_constants.ENABLE_RAY_CLUSTER = everywhere


def alive_nodes() -> Nodes:
    """The nodes that are alive, the driver's own first."""
    here = ray.get_runtime_context().get_node_id()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return sorted(nodes, key=lambda node: node["NodeID"] != here)


def share_of(sweep: Sweep, nodes: Nodes) -> Share:
    """What a trial gets: as the sweep says, else the nodes divided by the sweep's workers.

    Raises:
        ConfigError: No node has that much.
    """
    resources = [node["Resources"] for node in nodes]
    cpu, gpu = sweep.resources.cpu, sweep.resources.gpu
    if cpu is None:
        cpu = _even([int(r.get("CPU", 0)) for r in resources], sweep.workers)
    if gpu is None:
        gpus = [int(r.get("GPU", 0)) for r in resources]
        gpu = min(1.0, 1 / math.ceil(sweep.workers / sum(gpus))) if sum(gpus) else 0.0
    if not any(r.get("CPU", 0) >= cpu and r.get("GPU", 0) >= gpu for r in resources):
        largest = ", ".join(f"{r.get('CPU', 0):g} and {r.get('GPU', 0):g}" for r in resources)
        raise ConfigError(
            f"`sweep.resources` must fit one node, but a trial asks for {cpu:g} processors and "
            f"{gpu:g} GPUs, and the nodes have {largest}. Lower it, or add a larger node."
        )
    return Share(cpu, gpu)


def _even(counts: list[int], num_workers: int) -> int:
    """The most processors each worker can have, so that all fit; at least 1."""
    sizes = range(max(counts), 0, -1)
    return next((s for s in sizes if sum(n // s for n in counts) >= num_workers), 1)


def store_environment() -> Mapping[str, str]:
    """The driver's variables that its stores ask for: addresses and credentials of MLflow.

    Of a Ray that this process has started hemaml's own as well: its workers have those of that
    moment. Elsewhere folders may be others on purpose.
    """
    node = ray_worker._global_node
    names = ("MLFLOW_", "HEMAML_") if node is not None and node.is_head() else ("MLFLOW_",)
    return {name: value for name, value in os.environ.items() if name.startswith(names)}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
