"""What describes the served stack: its entry points, and compose's file of the same."""

import os
import re
import shutil
import subprocess

import pytest
import yaml
from stack import ROOT

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
