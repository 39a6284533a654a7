"""The served stack, started as `make stack` does: real servers, a real sweep over all of them."""

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from servers import postgres_programs

ROOT = Path(__file__).parents[1]
STACK = ROOT / "docker" / "stack.py"
LATE_S = 300
ANY_EXPERIMENT = "/api/2.0/mlflow/experiments/get?experiment_id=0"
ENTRYPOINTS = {
    "database.sh": ("POSTGRES_PASSWORD",),
    "mlflow.sh": (
        "POSTGRES_PASSWORD", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY",
        "ARTIFACTS",
    ),
    "ray.sh": ("RAY_AUTH_TOKEN",),
    "studies.sh": ("POSTGRES_PASSWORD",),
}  # fmt: skip
SECRETS = {name for names in ENTRYPOINTS.values() for name in names} - {"ARTIFACTS"}
SMALL = ("params.epochs=1", "data.count=24", "data.size=64", "sweep.confirm_seeds=0")


@pytest.mark.parametrize(
    ("script", "absent"),
    [(script, name) for script, names in ENTRYPOINTS.items() for name in names],
)
def test_an_entry_point_without_one_of_its_secrets_ends_with_a_sentence(script, absent, tmp_path):
    given = {name: "given" for name in ENTRYPOINTS[script] if name != absent}
    done = subprocess.run(
        [ROOT / "docker" / "entrypoints" / script, str(tmp_path)],
        env={"PATH": os.environ["PATH"], **given}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {absent} must be set, but is empty.")
    assert not list(tmp_path.iterdir())


def test_compose_has_no_default_for_a_secret_and_publishes_on_loopback():
    text = (ROOT / "docker" / "compose.yaml").read_text()
    services = yaml.safe_load(text)["services"]
    for name in SECRETS:
        uses = re.findall(rf"\$\{{{name}([^}}]*)\}}", text)
        assert uses and all(use.startswith(f":?{name} must be set") for use in uses)
    published = [port for service in services.values() for port in service.get("ports", ())]
    assert published
    for port in published:
        assert port.startswith(("${HEMAML_PUBLISH:-127.0.0.1}:", "127.0.0.1:"))
    example = (ROOT / "docker" / ".env.example").read_text()
    assert all(f"\n{name}=\n" in f"\n{example}" for name in SECRETS)


class Stack:
    def __init__(self, folder):
        self.folder = folder
        self.log = folder.with_suffix(".log")
        with self.log.open("w") as log:
            command = [sys.executable, str(STACK), str(folder)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + LATE_S
        while "--address" not in (told := self.log.read_text()):
            assert self.process.poll() is None and time.monotonic() < deadline, told
            time.sleep(0.2)
        self.address = re.search(r"--address (\S+)", told)[1]

    @property
    def environment(self):
        lines = (self.folder / "client.env").read_text().splitlines()
        told = dict(line.removeprefix("export ").split("=", 1) for line in lines)
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("MLFLOW_", "RAY_"))}
        return {**kept, **told}

    def run(self, *command, **changes):
        return subprocess.run(
            [sys.executable, "-m", "hemaml.cli", *command],
            env={**self.environment, **changes}, capture_output=True, text=True, timeout=LATE_S,
        )  # fmt: skip

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=LATE_S)


def processes_of(*words):
    """Command lines of running processes that name the folder, or the port of Ray."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if any(word in command for word in words):
            found.append(command)
    return found


@pytest.fixture
def folder():
    """PostgreSQL's user must reach it, which pytest's own folders do not let it."""
    if postgres_programs() is None:
        assert "CI" not in os.environ, "PostgreSQL is absent: apt-get install postgresql"
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    folder = Path("/tmp") / f"hemaml-stack-{os.getpid()}"  # noqa: S108
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_suffix(".log").unlink(missing_ok=True)


@pytest.mark.slow
def test_a_sweep_over_the_stack_is_found_again_after_its_restart(workplace, folder):
    first = Stack(folder)
    try:
        environment = first.environment
        for name in (".env", "client.env"):
            assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{environment['MLFLOW_TRACKING_URI']}{ANY_EXPERIMENT}")
        settings = [word for text in SMALL for word in ("--set", text)]
        swept = first.run(
            "sweep", "experiments/wbc_segmentation/smgnn_smears.yaml", "--trials", "2", "--plain",
            "--engine", "ray", "--address", first.address, *settings,
        )  # fmt: skip
        assert swept.returncode == 0, swept.stdout + swept.stderr
        sweep_id = swept.stdout.split()[1]
        checked = first.run("doctor", "--sweep", sweep_id)
        assert checked.returncode == 0, checked.stdout
        backed_up = first.run("backup", str(workplace / "kept"))
        assert backed_up.returncode == 0 and "users: 1 users" in backed_up.stdout, backed_up
        refused = first.run("models", MLFLOW_TRACKING_PASSWORD="not-the-password")
        assert refused.returncode == 1 and refused.stderr.startswith("error: "), refused
        logs = "".join(path.read_text(errors="replace") for path in folder.glob("*.log"))
        secrets = (environment["MLFLOW_TRACKING_PASSWORD"], environment["RAY_AUTH_TOKEN"])
        logs += first.log.read_text()
        assert not any(secret in logs for secret in secrets)
    finally:
        code = first.end()
    assert code == 0
    assert not processes_of(str(folder), f"={first.address.rpartition(':')[2]}")
    assert not (workplace / "mlruns" / "artifacts").exists(), "artifacts went through the server"
    again = Stack(folder)
    try:
        assert again.run("doctor", "--sweep", sweep_id).returncode == 0
    finally:
        again.end()
    assert not processes_of(str(folder), f"={again.address.rpartition(':')[2]}")
