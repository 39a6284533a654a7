"""Who may do what on an MLflow server: logging in, and the users of a server with their roles."""

from hemaml.core import settings
from hemaml.core.errors import ConfigError, StoreError
from hemaml.record import trackers
from hemaml.tracking import credentials as kept
from hemaml.tracking import users as served
from hemaml.tracking.credentials import Credentials, check_keyring, is_server, server_address
from hemaml.tracking.users import ROLES, User

__all__ = ["ROLES", "User", "add_user", "check_login", "login", "logout", "remove_user", "users"]


def check_login(url: str) -> str:
    """The address of a server, under which this machine could keep a password.

    Raises:
        ConfigError: It is no address of a server, or this machine has no keyring.
    """
    address = server_address(url)
    check_keyring()
    return address


def login(url: str, username: str, password: str) -> str:
    """Keeps name and password for a server in the system's keyring, once the server takes them.

    Args:
        url: Of the MLflow server.
        username: As the server knows it.
        password: Goes to the server and the keyring, nowhere else.

    Returns:
        The address under which they are kept.

    Raises:
        ConfigError: As in `check_login`; or the server has no users.
        StoreError: The server refuses them, or does not answer.
    """
    address = check_login(url)
    given = Credentials(username, password)
    if not served.authenticated(address, given):
        raise StoreError(
            f"a login needs the password of a user, but {address} refused that of {username!r}. "
            "Try again, or ask an administrator: `hemaml user list` has all names."
        )
    kept.keep(address, given)
    return address


def logout(url: str) -> str:
    """Removes what the keyring has for a server.

    Returns:
        The address under which it was kept.

    Raises:
        ConfigError: This machine has no keyring, or it has nothing for the server.
    """
    address = server_address(url)
    if not kept.forget(address):
        raise ConfigError(
            f"a logout needs a login, but nothing is kept for {address}. Check the address; "
            f"{kept.USERNAME} and {kept.PASSWORD} in the environment are yours to unset."
        )
    return address


def add_user(name: str, password: str, role: str) -> None:
    """Makes a user of the server in use, by its administrator.

    The experiments of all tasks are made as well: trainers work in those that exist.

    Raises:
        UnknownName: No such role.
        ConfigError: The store is no server, or one without workspaces.
        Forbidden: Whoever asks is no administrator.
    """
    served.add_user(_server(), Credentials(name, password), role)
    trackers()


def users() -> list[User]:
    """The users of the server in use, sorted by name."""
    return served.users(_server())


def remove_user(name: str) -> None:
    """Removes a user of the server in use; what they recorded stays. Raises `UnknownName`."""
    served.remove_user(_server(), name)


def _server() -> str:
    uri = settings.tracking_uri()
    if not is_server(uri):
        raise ConfigError(
            "an MLflow server has users, but MLFLOW_TRACKING_URI is a file's: "
            f"{uri}. Set it to the address of a server."
        )
    return uri
