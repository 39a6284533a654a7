"""The served stack, started as `make stack` does: logins, roles, sweeps, the page, a restart.

What a role may do is asked of the servers themselves.
"""

import base64
import json
import os
import re
import stat
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from serve.fakes import wait_for
from stack import LATE_S, ROOT, SMALL, Stack, commands, processes_of, running_stack

from hemaml import access
from hemaml.core.errors import ConfigError, Forbidden, UnknownName
from hemaml.tracking.credentials import PASSWORD, USERNAME
from hemaml.tracking.mlflow_tracker import MlflowTracker
from hemaml.tracking.registry import Registry

SWEEP = (
    "sweep", "experiments/wbc_segmentation/smgnn_smears.yaml", "--plain",
    *(word for text in SMALL for word in ("--set", text)),
)  # fmt: skip
REGISTERED = ("--trials", "2", "--workers", "2", "--set", "sweep.confirm_seeds=1")
MODEL = "cells"
ADMINS = (USERNAME, PASSWORD, "HEMAML_RECORD_DATABASE", "HEMAML_USERS_DATABASE")
"""What only the administrator's file sets."""
WHO = {"rita": "reader", "tom": "trainer", "petra": "promoter"}
pytestmark = pytest.mark.slow


def password(name):
    return f"the-password-of-{name}"


@pytest.fixture(scope="module")
def stack():
    with running_stack() as stack, pytest.MonkeyPatch.context() as patch:
        for name, value in stack.environment.items():
            patch.setenv(name, value)
        for name, role in WHO.items():
            access.add_user(name, password(name), role)
        yield stack


@pytest.fixture(scope="module")
def keyring_of(tmp_path_factory):
    """The environment of a user whose keyring is a file of this name's own."""

    def environment(name):
        return {
            **dict.fromkeys(ADMINS), "PYTHON_KEYRING_BACKEND": "file_keyring.FileKeyring",
            "TEST_KEYRING": str(tmp_path_factory.getbasetemp() / f"keyring-{name}.json"),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        }  # fmt: skip

    return environment


def log_in(stack, name, environment, secret=None):
    command = ("login", stack.environment["MLFLOW_TRACKING_URI"], "--user", name)
    typed = f"{secret or password(name)}\n"
    return stack.run(*command, "--password-stdin", typed=typed, **environment)


@pytest.fixture
def acting(stack, monkeypatch):
    """Makes this process ask the server as a user."""

    def act(name):
        monkeypatch.setenv(USERNAME, name)
        monkeypatch.setenv(PASSWORD, password(name))
        return stack.environment["MLFLOW_TRACKING_URI"]

    return act


@pytest.fixture(scope="module")
def swept(stack, keyring_of, tmp_path_factory):
    """Two sweeps by a trainer who logged in, one on each engine, and all that they said."""
    folder, environment = tmp_path_factory.mktemp("place"), keyring_of("tom")
    for name in ("experiments", "search_spaces"):
        (folder / name).symlink_to(ROOT / name)
    environment |= {"HEMAML_CACHE": str(folder / "cache")}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = [log_in(stack, "tom", environment)]
        for more in (
            (*REGISTERED, "--set", f"register={MODEL}"),
            ("--trials", "1", "--engine", "ray", "--address", stack.address),
        ):
            done.append(stack.run(*SWEEP, *more, **environment))
    return folder, done


@pytest.fixture(scope="module")
def champion(stack, swept):
    """Version 1 of the model of the trainer's first sweep, which a promoter has promoted."""
    who = {USERNAME: "petra", PASSWORD: password("petra")}
    sweep_id = swept[1][1].stdout.split()[1]
    forced = ("--sweep", sweep_id, "--force", "for the test")
    promoted = stack.run("promote", MODEL, *forced, **who)
    assert promoted.returncode == 0, promoted.stdout + promoted.stderr


def test_the_folder_is_for_its_owner_and_gives_users_what_they_need(stack):
    secrets = kept_secrets(stack)
    for name in (".env", "admin.env", "users.env"):
        assert stat.S_IMODE((stack.folder / name).stat().st_mode) == 0o600
    users = (stack.folder / "users.env").read_text()
    given = {name for name, secret in secrets.items() if secret in users}
    assert given == {"STUDIES_PASSWORD", "RAY_AUTH_TOKEN"}


def kept_secrets(stack):
    lines = (stack.folder / ".env").read_text().splitlines()
    kept = dict(line.split("=", 1) for line in lines)
    return {name: value for name, value in kept.items() if not name.endswith("_PORT")}


def test_a_login_serves_both_engines_and_its_password_is_found_nowhere(stack, swept):
    folder, done = swept
    for one in done:
        assert one.returncode == 0, one.stdout + one.stderr
    secrets = [password("tom").encode(), base64.b64encode(f"tom:{password('tom')}".encode())]
    told = [*((one.stdout + one.stderr).encode() for one in done)]
    told += [command.encode() for _, command in commands()]
    # The database's own files have every run, parameter and tag; artifacts lie beside them.
    sessions = [path for path in Path("/tmp/ray").glob("session_2*")]  # noqa: S108
    files = [path for top in (folder, stack.folder, *sessions) for path in top.rglob("*")]
    files = [path for path in files if path.is_file() and path.stat().st_mtime > stack.began]
    assert len(files) > 100
    told += [path.read_bytes() for path in files]
    assert any(b"registered" in text for text in told), "looks where tags are"
    for secret in secrets:
        assert not [text for text in told if secret in text]


def test_a_wrong_password_is_not_kept(stack, keyring_of, tmp_path):
    environment = keyring_of("nobody")
    refused = log_in(stack, "tom", environment, "not-the-password")
    assert refused.returncode == 1 and "refused that of 'tom'" in refused.stderr
    assert "not-the-password" not in refused.stdout + refused.stderr
    assert not Path(environment["TEST_KEYRING"]).exists()


def test_what_was_kept_is_gone_after_a_logout(stack, keyring_of):
    environment = keyring_of("rita")
    assert log_in(stack, "rita", environment).returncode == 0
    assert stack.run("logout", **environment).returncode == 0
    asked = stack.run("models", **environment)
    assert asked.returncode == 1 and "was told no name and password" in asked.stderr


def test_a_trainer_sweeps_and_the_server_refuses_to_register_or_promote_for_them(
    stack, swept, acting, request
):
    sweep_id = swept[1][1].stdout.split()[1]
    promote = ("promote", MODEL, "--sweep", sweep_id, "--force", "for the test")
    assert f"hemaml promote {MODEL} --sweep {sweep_id}" in swept[1][1].stdout
    refused = stack.run(*promote, **{USERNAME: "tom", PASSWORD: password("tom")})
    assert refused.returncode == 1 and "refused this to 'tom'" in refused.stderr
    request.getfixturevalue("champion")  # which a promoter makes of the same sweep
    uri = acting("tom")
    registry, client = Registry(uri), MlflowClient(uri, uri)
    version = registry.by_alias(MODEL, "champion")
    assert version is not None
    for write in (
        lambda: registry.crown(version, seen=version),
        lambda: registry.point(version, "challenger"),
        lambda: registry.describe(version, "better than it is"),
    ):
        with pytest.raises(Forbidden, match="refused this to 'tom'"):
            write()
    for write in (
        lambda: client.create_registered_model("of_my_own"),
        lambda: client.set_registered_model_alias(MODEL, "champion", "1"),
        lambda: client.delete_registered_model_alias(MODEL, "champion"),
    ):
        with pytest.raises(MlflowException, match="Permission denied"):
            write()
    acting("petra")
    assert Registry(uri).by_alias(MODEL, "champion") == version


def test_a_reader_who_writes_is_refused(stack, swept, acting):
    uri = acting("rita")
    tracker = MlflowTracker(uri, "wbc_segmentation")
    (run, *_) = tracker.find({"kind": "sweep"})
    assert tracker.read_text(run.id, "split.json")
    for write in (
        lambda: tracker.start("mine", {"kind": "run"}),
        lambda: tracker.amend(run.id).set_tags({"outcome": "better"}),
        lambda: tracker.amend(run.id).log_text("no", "split.json"),
        lambda: MlflowTracker(uri, "a_task_of_my_own"),
        lambda: access.add_user("eve", password("eve"), "promoter"),
    ):
        with pytest.raises(Forbidden, match="refused this to 'rita'"):
            write()


def test_who_is_not_known_is_told_what_to_do(stack, keyring_of):
    uri, environment = stack.environment["MLFLOW_TRACKING_URI"], keyring_of("past")
    changed_since = json.dumps({"username": "tom", "password": "not-the-password"})
    Path(environment["TEST_KEYRING"]).write_text(json.dumps({f"hemaml {uri}": changed_since}))
    for who, told in (
        ({USERNAME: "tom", PASSWORD: "not-the-password"}, "refused the password of 'tom'"),
        (environment, "refused the password of 'tom'"),
    ):
        asked = stack.run("models", **who)
        assert asked.returncode == 1 and asked.stderr.startswith("error: "), asked
        assert told in asked.stderr and f"hemaml login {uri}" in asked.stderr
        assert "not-the-password" not in asked.stderr


def test_a_cluster_that_asks_for_a_token_refuses_another_and_none(stack, tmp_path):
    command = (*SWEEP, "--engine", "ray", "--address", stack.address)
    with ThreadPoolExecutor() as both:  # Ray tries a wrong one for half a minute
        asked = [
            both.submit(stack.run, *command, RAY_AUTH_TOKEN=token, HOME=str(tmp_path))
            for token in ("0" * 64, None)
        ]
    for done in (each.result() for each in asked):
        *_, told = done.stderr.splitlines()  # Ray's own words come before
        assert done.returncode == 1 and told.startswith("error: "), done
        assert "RAY_AUTH_TOKEN" in told


def test_users_are_made_listed_and_removed_by_the_administrator(stack, acting):
    access.add_user("sam", password("sam"), "reader")
    assert {user.name: user.roles for user in access.users()} == {
        "admin": ("administrator",), "page": ("reader",), "sam": ("reader",),
        **{name: (role,) for name, role in WHO.items()},
    }  # fmt: skip
    with pytest.raises(ConfigError, match="'sam' is there"):
        access.add_user("sam", password("sam"), "trainer")
    with pytest.raises(ConfigError, match="at least 12 characters"):
        access.add_user("max", "short", "trainer")
    with pytest.raises(UnknownName, match="known: trainer"):
        access.add_user("max", password("max"), "trainr")
    access.remove_user("sam")
    with pytest.raises(UnknownName, match="unknown user 'sam'"):
        access.remove_user("sam")


def test_the_page_asks_for_its_token_and_has_the_champion(stack, champion):
    page = re.search(r"^page +(http://\S+)", stack.log.read_text(), re.M)[1]
    wait_for(lambda: status(f"{page}/health") == 200, seconds=LATE_S)
    assert status(f"{page}/api/v1/models") == 401
    token = {"Authorization": f"Bearer {kept_secrets(stack)['HEMAML_SERVE_TOKEN']}"}
    asked = urllib.request.Request(f"{page}/api/v1/models", headers=token)
    wait_for(lambda: f'"{MODEL}"'.encode() in urllib.request.urlopen(asked).read(), seconds=LATE_S)


def status(address):
    """What a server answers, None where it does not."""
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status
    except HTTPError as error:
        return error.code
    except OSError:
        return None


def test_the_stack_ends_whole_and_finds_its_sweeps_again_after_a_restart(stack, swept):
    record = f"{stack.environment['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/experiments/get"
    assert status(f"{record}?experiment_id=0") == 401
    before = stack.environment
    assert stack.end() == 0
    assert not processes_of(str(stack.folder), f"={stack.address.rpartition(':')[2]}")
    logs = [stack.log, *stack.folder.glob("*.log")]
    told = "".join(log.read_text(errors="replace") for log in logs)
    assert not any(secret in told for secret in kept_secrets(stack).values())
    alone = Stack(stack.folder, "--database")
    try:
        upgraded = alone.run("upgrade")
        assert upgraded.returncode == 0, upgraded.stderr
    finally:
        assert alone.end() == 0
    again = Stack(stack.folder, MLFLOW_WORKERS="1")
    try:
        assert (again.environment, again.address) == (before, stack.address)
        for sweep in swept[1][1:]:
            checked = again.run("doctor", "--sweep", sweep.stdout.split()[1])
            assert checked.returncode == 0, checked.stdout
    finally:
        assert again.end() == 0
