"""Who asks an MLflow server: name and password, kept in the keyring of the operating system.

MLflow's client reads both from the environment at each request. Where the user has set nothing
there, what was kept for a server is put there as soon as a process opens that server, and taken
away when it opens another one: a password is sent only to the server that it was kept for.
Processes that are started meanwhile inherit it; on other machines, Ray's workers are told.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

import keyring
from keyring.backends.fail import Keyring as NoKeyring
from keyring.errors import KeyringError, PasswordDeleteError
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import read_mlflow_creds
from requests import HTTPError

from hemaml.core.errors import ConfigError, Forbidden, StoreError
from hemaml.tracking.outages import DENIED, UNKNOWN

USERNAME, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"  # noqa: S105 - names
GIVEN = (USERNAME, PASSWORD, "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_AUTH")
"""Variables by which users tell MLflow who they are; with any of them, no keyring is asked."""
KEPT_FOR = "HEMAML_KEPT_FOR"
"""The server whose kept credentials are in the environment; inherited with them."""
SERVICE = "hemaml"
INSTEAD = f"set {USERNAME} and {PASSWORD}, from a file that only you can read"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user of a server; the password is not shown."""

    username: str
    password: str = field(repr=False)


def is_server(uri: str) -> bool:
    """Whether a store is an MLflow server, which may ask for a password."""
    return uri.startswith(("http://", "https://"))


def server_address(uri: str) -> str:
    """The address of a server in the one form under which its credentials are kept.

    Raises:
        ConfigError: It is no address of a server, or has a password in it.
    """
    parts = urlsplit(uri)
    if not is_server(uri) or not parts.hostname:
        raise ConfigError(
            f"an MLflow server is http://HOST:PORT or https://HOST, but got {uri!r}. "
            "Give its address, as in MLFLOW_TRACKING_URI."
        )
    if "@" in parts.netloc:
        raise ConfigError(
            "the address of a server must be without name and password, but got one of "
            f"{parts.hostname!r} with them. Leave them out: `hemaml login` asks for them."
        )
    return urlunsplit((parts.scheme, parts.netloc.lower(), parts.path.rstrip("/"), "", ""))


def check_keyring() -> None:
    """Raises `ConfigError` where this machine has no keyring to keep a password in."""
    if isinstance(keyring.get_keyring(), NoKeyring):
        raise ConfigError(
            "a password is kept in the keyring of the operating system, but this machine has none "
            f"(on Linux: GNOME Keyring or KWallet in a desktop session). Instead, {INSTEAD}."
        )


def keep(uri: str, credentials: Credentials) -> None:
    """Keeps the credentials of a server in the keyring, in place of earlier ones."""
    check_keyring()
    told = json.dumps({"username": credentials.username, "password": credentials.password})
    with _keyring_errors():
        keyring.set_password(SERVICE, server_address(uri), told)


def kept(uri: str) -> Credentials | None:
    """What the keyring has for a server; None where there is nothing, or no keyring."""
    if isinstance(keyring.get_keyring(), NoKeyring):
        return None
    with _keyring_errors():
        told = keyring.get_password(SERVICE, server_address(uri))
    return Credentials(**json.loads(told)) if told else None


def forget(uri: str) -> bool:
    """Removes what the keyring has for a server; whether there was anything."""
    check_keyring()
    with _keyring_errors():
        try:
            keyring.delete_password(SERVICE, server_address(uri))
        except PasswordDeleteError:
            return False
    return True


def use_kept(uri: str) -> None:
    """Lets MLflow ask this server with what was kept for it, unless the user says otherwise."""
    owner = os.environ.get(KEPT_FOR)
    if owner == uri or (owner is None and any(os.environ.get(name) for name in GIVEN)):
        return
    for name in (USERNAME, PASSWORD, KEPT_FOR) if owner else ():
        os.environ.pop(name, None)
    # An address with a password in it says who asks.
    if not is_server(uri) or "@" in urlsplit(uri).netloc:
        return
    if (found := kept(uri)) is not None:
        os.environ |= {USERNAME: found.username, PASSWORD: found.password, KEPT_FOR: uri}


def refusal(uri: str, error: BaseException) -> StoreError | None:
    """The error to raise where a server refused who asks, or what; None where it did neither."""
    if _is(error, UNKNOWN, 401):
        name = read_mlflow_creds().username
        told = f"refused the password of {name!r}" if name else "was told no name and password"
        return StoreError(
            f"an MLflow server with users must know who asks, but {uri} {told}. "
            f"Run `hemaml login {uri}`, or {INSTEAD}."
        )
    if _is(error, DENIED, 403) and "Permission denied" in str(error):  # not its host check
        return Forbidden(
            f"an MLflow server does what the user's role allows, but {uri} refused this to "
            f"{read_mlflow_creds().username!r}. Readers look, trainers sweep in experiments "
            "that exist, promoters register, promote and roll back: ask one of them, or an "
            "administrator for the role (`hemaml user`)."
        )
    return None


def _is(error: BaseException, code: str, status: int) -> bool:
    if isinstance(error, HTTPError):  # of the artifact proxy
        return error.response is not None and error.response.status_code == status
    return isinstance(error, MlflowException) and error.error_code == code


@contextmanager
def _keyring_errors() -> Iterator[None]:
    try:
        yield
    except KeyringError as error:
        raise StoreError(
            "the keyring of this system must answer, but it gave: "
            f"{str(error).partition(chr(10))[0] or type(error).__name__}. Unlock it, or {INSTEAD}."
        ) from error
