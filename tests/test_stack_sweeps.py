"""Sweeps of a trainer on the served stack: two Ray nodes, artifacts on S3, servers that die.

Outages of each server in the sweeps of each engine are in `test_servers.py`; here is what the
stack adds: its entry points start a killed server again, also PostgreSQL on what a crash left.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from hashlib import md5
from pathlib import Path

import boto3
import pytest
import yaml
from mlflow.artifacts import download_artifacts
from server_sweep import GATED, TRIALS
from servers import free_port
from stack import LATE_S, ROOT, running_stack

from hemaml import access
from hemaml.doctor import examine_sweep
from hemaml.record import find_sweep
from hemaml.tracking.credentials import PASSWORD, USERNAME
from hemaml.tracking.mlflow_tracker import MlflowTracker
from hemaml.tracking.outages import RETRIES

SCRIPT = Path(__file__).parent / "server_sweep.py"
BUCKET = "hemaml"
TRAINER = "tom", "the-password-of-tom"
AMAZON = {
    "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1",
}  # fmt: skip
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def s3():
    """An S3 server with an empty bucket."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1"]
    server = subprocess.Popen(
        [*command, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + LATE_S
        while not listens(port):
            assert server.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        client = boto3.client(
            "s3", endpoint_url=address, aws_access_key_id="any", aws_secret_access_key="any",
            region_name="us-east-1",
        )  # fmt: skip
        client.create_bucket(Bucket=BUCKET)
        client.address = address
        yield client
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def stack(s3):
    """A stack with its artifacts on S3, asked by a trainer; nobody else knows where S3 is."""
    if (address := own_address()) is None:
        pytest.skip("a second node needs an address that is not the loopback's")
    where = {"HEMAML_BIND": address, "MLFLOW_WORKERS": "1"}  # two are in `test_access.py`
    where |= {"ARTIFACTS": f"s3://{BUCKET}/artifacts", "MLFLOW_S3_ENDPOINT_URL": s3.address}
    with running_stack(**where, **AMAZON) as stack, pytest.MonkeyPatch.context() as patch:
        for name, value in stack.environment.items():
            patch.setenv(name, value)
        access.add_user(*TRAINER, "trainer")
        MlflowTracker(os.environ["MLFLOW_TRACKING_URI"], "stub")  # trainers work in what exists
        yield stack


@pytest.fixture
def administrator(stack, stub, monkeypatch):
    """This process, and what it starts, as the administrator."""
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    return stack


@pytest.fixture
def trainer(administrator, monkeypatch):
    """This process, and what it starts, as the trainer."""
    monkeypatch.setenv(USERNAME, TRAINER[0])
    monkeypatch.setenv(PASSWORD, TRAINER[1])
    return administrator


@pytest.fixture(scope="module")
def second_node(stack):
    """A worker of the cluster, by the entry point of its container."""
    log = stack.folder / "worker.log"
    command = [ROOT / "docker" / "entrypoints" / "ray.sh", "worker", stack.address]
    with log.open("w") as told:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        node = subprocess.Popen(
            command, stdout=told, stderr=told, start_new_session=True,
            env={**os.environ, **stack.environment, "PATH": path, "HEMAML_BIND": own_address()},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + LATE_S
        while "Ray runtime started" not in log.read_text():
            assert node.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield node
    finally:
        if node.poll() is None:
            os.killpg(node.pid, signal.SIGTERM)
            node.wait(timeout=LATE_S)


def own_address():
    """An address of this machine by which others would reach it, or None; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        found = probe.getsockname()[0]
    return None if found.startswith("127.") else found


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def begin():
    """Begins a sweep by an engine in a process of its own, and gives both once it has its id."""
    with ExitStack() as begun:

        def begin(engine):
            environment = {name: value for name, value in os.environ.items() if name != RETRIES}
            process = subprocess.Popen(
                [sys.executable, str(SCRIPT), engine],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
            )  # fmt: skip
            begun.enter_context(process)
            begun.callback(process.kill)
            return process, read_until(process, "sweep").split()[1]

        yield begin


def read_until(process, wanted):
    told = []
    while line := process.stdout.readline():
        told.append(line)
        if line.startswith(wanted):
            return line
    raise AssertionError("".join(told))


def test_the_cluster_has_two_nodes_that_would_do_the_same_work(trainer, second_node):
    experiment = "experiments/wbc_segmentation/smgnn_smears.yaml"
    checked = trainer.run("cluster", "check", experiment, "--address", trainer.address)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    nodes = Counter(line.split()[2] for line in checked.stdout.splitlines()[1:])
    assert len(nodes) == 2, checked.stdout


def test_the_health_check_of_the_image_is_answered(administrator):
    """By what the container of a node knows, and not what its entry point exports."""
    image = (ROOT / "docker" / "Dockerfile").read_text().partition(" AS cpu\n")[2]
    known = dict(re.findall(r"(RAY_\w+)=(\S+)", image.partition("\nFROM ")[0]))
    check = json.loads(re.search(r"HEALTHCHECK .* CMD (\[.*\])", image)[1])
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
    assert set(services["ray"]["environment"]) == {"RAY_AUTH_TOKEN"}
    known |= {
        "RAY_AUTH_TOKEN": administrator.environment["RAY_AUTH_TOKEN"],
        "PATH": os.environ["PATH"],
    }
    program = [str(Path(sys.executable).with_name(check[0])), *check[1:]]
    done = subprocess.run(
        [*program, "--address", administrator.address], env=known, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_sweeps_of_both_engines_lose_nothing_where_the_servers_are_killed(
    trainer, second_node, begin, s3, tmp_path, monkeypatch
):
    monkeypatch.setenv("GATES", str(tmp_path))
    sweeps = [begin(f"ray@{trainer.address}"), begin("native")]
    for trial, server in zip(GATED, ("mlflow", "database"), strict=True):
        for process, _ in sweeps:
            read_until(process, f"started {trial}")
        trainer.kill(server)
        (tmp_path / str(trial)).touch()
    for process, sweep_id in sweeps:
        told, _ = process.communicate(timeout=LATE_S)
        assert process.returncode == 0, f"{told}\n{trainer.told()}"
        findings = examine_sweep(sweep_id)
        assert {found.state for found in findings} == {"ok"}, findings
    for server in ("mlflow", "database"):
        assert f"{server} ended with -9: started again" in trainer.log.read_text()

    uri = os.environ["MLFLOW_TRACKING_URI"]
    tracker = MlflowTracker(uri, "stub")
    for _, sweep_id in sweeps:
        parent = find_sweep(sweep_id)
        below = tracker.find({}, parent=parent.id)
        assert {run.status for run in (parent, *below)} == {"FINISHED"}
        trials = Counter(run.tags["trial"] for run in below if run.tags["kind"] == "trial")
        assert trials == Counter(str(number) for number in range(TRIALS))
        kept = s3.list_objects_v2(Bucket=BUCKET, Prefix="artifacts/")["Contents"]
        assert any(parent.id in found["Key"] for found in kept), "on S3"
        assert tracker.download(parent.id, "split.json", tmp_path).stat().st_size
        model = download_artifacts(parent.tags["model"], dst_path=tmp_path, tracking_uri=uri)
        assert (Path(model) / "MLmodel").exists()


def test_a_backup_of_what_is_on_s3_brings_it_back_there(administrator, s3, tmp_path):
    tracker = MlflowTracker(os.environ["MLFLOW_TRACKING_URI"], "stub")
    run = tracker.start("kept", {"kind": "run"})
    tracker.amend(run.id).log_text("of the backup", "split.json")
    run.end("FINISHED")
    reached = {"MLFLOW_S3_ENDPOINT_URL": s3.address, **AMAZON}
    direct = ("--artifacts", f"s3://{BUCKET}/artifacts")
    for folder, kept, who in (("direct", direct, reached), ("proxied", (), {})):
        done = administrator.run("backup", str(tmp_path / folder), *kept, **who)
        assert done.returncode == 0 and "users: 3 users" in done.stdout, done
    there = objects(s3)
    (name,) = (name for name in there if run.id in name)
    held = [digests(tmp_path / folder / "artifacts") for folder in ("direct", "proxied")]
    assert held[0] == held[1]
    assert f'"{held[0][f"runs/{run.id}/split.json"]}"' == there[name]

    s3.delete_object(Bucket=BUCKET, Key=name)
    back = ("restore", str(tmp_path / "direct"), "--replace", str(tmp_path / "before"), *direct)
    done = administrator.run(*back, **reached)
    assert done.returncode == 0, done.stderr
    assert objects(s3) == there
    assert tracker.read_text(run.id, "split.json") == "of the backup"


def digests(folder):
    """MD5 of each file below a folder: what S3 tells of an object."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): md5(path.read_bytes()).hexdigest() for path in files}


def objects(s3):
    """The artifacts on S3, by name, as their contents are told apart there."""
    found = s3.list_objects_v2(Bucket=BUCKET, Prefix="artifacts/")
    assert not found["IsTruncated"]
    return {one["Key"]: one["ETag"] for one in found["Contents"]}
