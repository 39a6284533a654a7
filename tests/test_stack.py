"""The served stack, started as `make stack` does: real servers, a real sweep over all of them."""

import os
import re
import shutil
import stat
import subprocess
import urllib.error
import urllib.request

import pytest
import yaml
from serve.fakes import wait_for
from stack import ROOT, SMALL, Stack, processes_of, stack_folder

MODEL = "wbc_segmentation-smears"
ANY_EXPERIMENT = "/api/2.0/mlflow/experiments/get?experiment_id=0"
ENTRYPOINTS = {
    "database.sh": ("POSTGRES_PASSWORD",),
    "mlflow.sh": (
        "POSTGRES_PASSWORD", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY",
        "ARTIFACTS",
    ),
    "ray.sh": ("RAY_AUTH_TOKEN",),
    "studies.sh": ("POSTGRES_PASSWORD", "STUDIES_PASSWORD"),
    "page.sh": ("MLFLOW_TRACKING_URI", "HEMAML_PAGE_PASSWORD", "HEMAML_SERVE_TOKEN"),
}  # fmt: skip
SECRETS = {
    name for names in ENTRYPOINTS.values() for name in names
    if name not in {"ARTIFACTS", "MLFLOW_TRACKING_URI"}
}  # fmt: skip


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


@pytest.fixture(scope="module")
def compose(tmp_path_factory):
    """Compose's own reading of the file, by either of its programs; neither needs an engine."""
    file, folder = ROOT / "docker" / "compose.yaml", tmp_path_factory.mktemp("docker")
    plugin = ["docker", "compose"]
    if (
        shutil.which("docker")
        and not subprocess.run([*plugin, "version"], capture_output=True).returncode
    ):
        program, text = plugin, file.read_text()
    elif shutil.which("docker-compose"):  # the older one, which Debian has, knows no `name`
        program, text = ["docker-compose"], file.read_text().replace("\nname: hemaml\n", "\n")
    else:
        assert "CI" not in os.environ, "compose is absent: apt-get install docker-compose"
        pytest.skip("needs compose: apt-get install docker-compose")
    (folder / "compose.yaml").write_text(text)

    def config(**given):
        return subprocess.run(
            [*program, "--file", folder / "compose.yaml", "--profile", "gpu", "config"],
            env={"PATH": os.environ["PATH"], **given}, capture_output=True, text=True,
        )  # fmt: skip

    return config


def test_compose_takes_its_file_and_resolves_every_service(compose):
    done = compose(**dict.fromkeys(SECRETS, "given"))
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert set(services) == {
        "database", "mlflow", "studies", "page-account", "page", "ray", "worker", "gpu-worker",
    }  # fmt: skip
    for name in ("mlflow", "studies"):
        assert services[name]["environment"]["POSTGRES_PASSWORD"] == "given"
    assert services["worker"]["command"] == ["worker", "ray:6379"]


@pytest.mark.parametrize("absent", sorted(SECRETS))
def test_compose_without_a_secret_stops_with_its_sentence(compose, absent):
    done = compose(**{name: "given" for name in SECRETS if name != absent})
    assert done.returncode and f"{absent} must be set in docker/.env" in done.stderr


@pytest.fixture
def folder():
    with stack_folder() as folder:
        yield folder


def answers(address):
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False


@pytest.mark.slow
def test_a_sweep_over_the_stack_is_found_again_after_its_restart(workplace, folder):
    first = Stack(folder)
    try:
        environment = first.environment
        for name in (".env", "admin.env", "users.env"):
            assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{environment['MLFLOW_TRACKING_URI']}{ANY_EXPERIMENT}")
        settings = [word for text in (*SMALL, "sweep.confirm_seeds=1") for word in ("--set", text)]
        swept = first.run(
            "sweep", "experiments/wbc_segmentation/smgnn_smears.yaml", "--trials", "2", "--plain",
            "--engine", "ray", "--address", first.address, *settings,
        )  # fmt: skip
        assert swept.returncode == 0, swept.stdout + swept.stderr
        sweep_id = swept.stdout.split()[1]
        checked = first.run("doctor", "--sweep", sweep_id)
        assert checked.returncode == 0, checked.stdout
        backed_up = first.run("backup", str(workplace / "kept"))
        assert backed_up.returncode == 0 and "users: 2 users" in backed_up.stdout, backed_up
        promoted = first.run("promote", MODEL, "--sweep", sweep_id, "--force", "for the test")
        assert promoted.returncode == 0, promoted.stdout + promoted.stderr
        listed = first.run("user", "list")
        assert re.search(r"^ *page +reader *$", listed.stdout, re.M), listed
        page = re.search(r"^page +(http://\S+)", first.log.read_text(), re.M)[1]
        wait_for(lambda: answers(f"{page}/health"), seconds=240)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{page}/api/v1/models")
        kept = dict(line.split("=", 1) for line in (folder / ".env").read_text().splitlines())
        token = {"Authorization": f"Bearer {kept['HEMAML_SERVE_TOKEN']}"}
        asked = urllib.request.Request(f"{page}/api/v1/models", headers=token)
        wait_for(lambda: MODEL.encode() in urllib.request.urlopen(asked).read(), seconds=240)
        refused = first.run("models", MLFLOW_TRACKING_PASSWORD="not-the-password")
        assert refused.returncode == 1 and refused.stderr.startswith("error: "), refused
        logs = "".join(path.read_text(errors="replace") for path in folder.glob("*.log"))
        logs += first.log.read_text()
        assert not any(secret in logs for secret in kept.values())
        users = (folder / "users.env").read_text()
        given = {name for name, secret in kept.items() if secret in users}
        assert given == {"STUDIES_PASSWORD", "RAY_AUTH_TOKEN"}
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
