"""Passwords in the keyring: kept for one server, sent to no other."""

import os

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends.fail import Keyring as NoKeyring
from keyring.errors import KeyringLocked, PasswordDeleteError

from hemaml import access
from hemaml.core.errors import ConfigError, StoreError
from hemaml.tracking.credentials import GIVEN, KEPT_FOR, Credentials, keep, server_address, use_kept

HERE, THERE = "http://here:5000", "https://there"
SECRET = "not-to-be-seen"  # noqa: S105 - of nobody


class Memory(KeyringBackend):
    priority = 1

    def __init__(self):
        super().__init__()
        self.kept = {}

    def get_password(self, service, username):
        return self.kept.get((service, username))

    def set_password(self, service, username, password):
        self.kept[service, username] = password

    def delete_password(self, service, username):
        if self.kept.pop((service, username), None) is None:
            raise PasswordDeleteError


class Locked(Memory):
    def get_password(self, service, username):
        raise KeyringLocked("the collection is locked")


@pytest.fixture
def memory(monkeypatch):
    """A keyring in memory, and no credentials in the environment; both as before afterwards."""
    for name in (*GIVEN, KEPT_FOR):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    before = keyring.get_keyring()
    keyring.set_keyring(Memory())
    yield
    keyring.set_keyring(before)
    for name in (*GIVEN, KEPT_FOR):
        os.environ.pop(name, None)


def asked_with():
    return os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")


def test_what_is_kept_goes_to_its_own_server_alone(memory):
    keep(HERE, Credentials("kim", SECRET))
    use_kept(HERE)
    assert asked_with() == ("kim", SECRET)
    use_kept(THERE)
    assert asked_with() == (None, None)
    use_kept(HERE)
    use_kept("http://kim:other@here:5000")  # says itself who asks
    assert asked_with() == (None, None)


def test_a_child_that_inherits_a_password_does_not_send_it_elsewhere(memory, monkeypatch):
    keep(THERE, Credentials("sam", "another-one"))
    for name, value in zip((*GIVEN[:2], KEPT_FOR), ("kim", SECRET, HERE), strict=True):
        monkeypatch.setenv(name, value)
    use_kept(THERE)
    assert asked_with() == ("sam", "another-one")


@pytest.mark.parametrize("name", GIVEN)
def test_what_the_user_sets_goes_first(memory, monkeypatch, name):
    keep(HERE, Credentials("kim", SECRET))
    monkeypatch.setenv(name, "mine")
    use_kept(HERE)
    assert os.environ.get("MLFLOW_TRACKING_PASSWORD") in (None, "mine")


def test_a_logout_forgets_one_server_and_says_where_nothing_was_kept(memory):
    for server in (HERE, THERE):
        keep(server, Credentials("kim", SECRET))
    assert access.logout(f"{HERE}/") == HERE
    use_kept(HERE)
    assert asked_with() == (None, None)
    with pytest.raises(ConfigError, match=f"nothing is kept for {HERE}"):
        access.logout(HERE)
    use_kept(THERE)
    assert asked_with() == ("kim", SECRET)


def test_a_file_store_asks_no_keyring(memory):
    keyring.set_keyring(Locked())
    use_kept("sqlite:///mlruns/mlflow.db")
    with pytest.raises(StoreError, match="keyring of this system must answer.*locked.*Unlock it"):
        use_kept(HERE)


def test_without_a_keyring_the_variables_are_named_before_a_password_is_asked_for(memory):
    keyring.set_keyring(NoKeyring())
    use_kept(HERE)
    assert asked_with() == (None, None)
    with pytest.raises(ConfigError) as told:
        access.check_login(HERE)
    assert "this machine has none" in str(told.value)
    assert "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in str(told.value)


@pytest.mark.parametrize("uri", ["sqlite:///x.db", "here:5000", "http://", "http://kim:pw@here"])
def test_an_address_is_that_of_a_server_and_has_no_password_in_it(uri):
    with pytest.raises(ConfigError) as told:
        server_address(uri)
    assert "pw" not in str(told.value)


def test_one_server_has_one_address_and_its_password_is_not_printed():
    assert server_address("http://Here:5000/") == server_address(HERE)
    assert SECRET not in repr(Credentials("kim", SECRET))
