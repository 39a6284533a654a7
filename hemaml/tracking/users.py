"""The users of an MLflow server and the three roles that hemaml gives them, by MLflow's own grants.

Whoever may write to a registered model in MLflow may also move its aliases, and whoever makes one
may do all with it. So trainers do neither: what they sweep is registered by whoever promotes it.
That a user without the grant `workspace` makes nothing is kept only by a server with workspaces.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request, verify_rest_response
from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME

from hemaml.core.errors import ConfigError, UnknownName
from hemaml.tracking.credentials import Credentials, use_kept
from hemaml.tracking.mlflow_run import store_errors
from hemaml.tracking.outages import first_contact

ROLES: Mapping[str, Mapping[str, str]] = {
    "reader": {"experiment": "READ", "registered_model": "READ"},
    "trainer": {"experiment": "EDIT", "registered_model": "READ"},
    "promoter": {"experiment": "EDIT", "registered_model": "EDIT", "workspace": "USE"},
}
"""What each role may do with everything of a kind; `workspace: USE` makes new ones."""
ADMINISTRATOR = "administrator"
OWN = "__user_"
"""How MLflow names the role that a user's grants on things of their own making are in."""
USERS, ROLE = "/api/2.0/mlflow/users", "/api/3.0/mlflow/roles"
REFUSED = 401
NO_USERS, WRONG = "ENDPOINT_NOT_FOUND", "INVALID_PARAMETER_VALUE"


@dataclass(frozen=True, slots=True)
class User:
    """A user of a server.

    Attributes:
        name: Unique.
        roles: Names of the roles, ours and others, sorted; of administrators, that.
    """

    name: str
    roles: tuple[str, ...]


def authenticated(uri: str, credentials: Credentials) -> bool:
    """Whether a server takes these credentials; nothing of them is kept.

    Raises:
        ConfigError: The server has no users: it asks nobody for a password.
        StoreError: It does not answer.
    """
    path = f"{USERS}/current"
    with store_errors(uri), first_contact(uri, met=False):
        response = _send(uri, "GET", path, credentials=credentials)
        taken = bool(response.status_code != REFUSED)
        if taken:
            _verify(uri, path, response)
    return taken


def add_user(uri: str, credentials: Credentials, role: str) -> None:
    """Makes a user with a role; the role too, where the server does not have it yet.

    Raises:
        UnknownName: No such role.
        ConfigError: The name is taken, the password too short, the role was changed on the server,
            or the server has no workspaces.
        Forbidden: Only administrators may.
    """
    if role not in ROLES:
        raise UnknownName("role", role, ROLES)
    _check_workspaces(uri)
    if credentials.username in (names := [user.name for user in users(uri)]):
        raise ConfigError(
            f"a new user needs a name of their own, but {credentials.username!r} is there; known: "
            f"{', '.join(names)}. For another role or a lost password, remove and add the user."
        )
    role_id = _role_id(uri, role)
    told = {"username": credentials.username, "password": credentials.password}
    _ask(uri, "POST", f"{USERS}/create", told)
    _ask(uri, "POST", f"{ROLE}/assign", {"username": credentials.username, "role_id": role_id})


def users(uri: str) -> list[User]:
    """All users of a server, sorted. Raises `Forbidden` for all but administrators."""
    return sorted(
        (
            User(found["username"], (ADMINISTRATOR,) if found["is_admin"] else _roles(uri, found))
            for found in _ask(uri, "GET", f"{USERS}/list")["users"]
        ),
        key=lambda user: user.name,
    )


def remove_user(uri: str, name: str) -> None:
    """Removes a user; what they recorded stays. Raises `UnknownName`."""
    known = [user.name for user in users(uri)]
    if name not in known:
        raise UnknownName("user", name, known)
    _ask(uri, "DELETE", f"{USERS}/delete", {"username": name})


def _roles(uri: str, user: Mapping[str, Any]) -> tuple[str, ...]:
    found = _ask(uri, "GET", "/api/3.0/mlflow/users/roles/list", {"username": user["username"]})
    names = {role["name"] for role in found["roles"]}
    return tuple(sorted(name for name in names if not name.startswith(OWN)))


def _role_id(uri: str, name: str) -> int:
    """Id of one of our roles on a server, which is made where there is none."""
    listed = _ask(uri, "GET", f"{ROLE}/list", {"workspace": DEFAULT_WORKSPACE_NAME})["roles"]
    for role in listed:
        if role["name"] == name:
            _check_grants(uri, role)
            return int(role["id"])
    wanted = {"workspace": DEFAULT_WORKSPACE_NAME, "name": name}
    made = _ask(uri, "POST", f"{ROLE}/create", wanted)["role"]
    for kind, permission in ROLES[name].items():
        grant = {"resource_type": kind, "resource_pattern": "*", "permission": permission}
        _ask(uri, "POST", f"{ROLE}/permissions/add", {"role_id": made["id"], **grant})
    return int(made["id"])


def _check_grants(uri: str, role: Mapping[str, Any]) -> None:
    told = _ask(uri, "GET", f"{ROLE}/permissions/list", {"role_id": str(role["id"])})
    grants = {
        (grant["resource_type"], grant["resource_pattern"], grant["permission"])
        for grant in told["role_permissions"]
    }
    wanted = {(kind, "*", permission) for kind, permission in ROLES[role["name"]].items()}
    if grants != wanted:
        raise ConfigError(
            f"the role {role['name']!r} must grant {_told(wanted)}, but on {uri} it grants "
            f"{_told(grants)}. Correct or delete it in the UI, under its administrator's settings."
        )


def _told(grants: set[tuple[str, str, str]]) -> str:
    return ", ".join(f"{how} {kind} {which}" for kind, which, how in sorted(grants)) or "nothing"


def _check_workspaces(uri: str) -> None:
    if not _ask(uri, "GET", "/api/3.0/mlflow/server-info").get("workspaces_enabled"):
        raise ConfigError(
            "roles need a server with workspaces, but on "
            f"{uri} anybody may make a registered model and promote to it. "
            "Start it with `mlflow server --app-name basic-auth --enable-workspaces`."
        )


def _ask(uri: str, method: str, path: str, told: Mapping[str, object] | None = None) -> Any:
    use_kept(uri)
    with store_errors(uri), first_contact(uri, met=False):
        response = _send(uri, method, path, told)
        _verify(uri, path, response)
        return response.json() if response.content else {}


def _verify(uri: str, path: str, response: Any) -> None:
    try:
        verify_rest_response(response, path)
    except MlflowException as error:
        if error.error_code == NO_USERS:
            raise ConfigError(
                f"only an MLflow server with users knows users and passwords, but {uri} asks "
                "nobody. Use it without a login, or start it with --app-name basic-auth."
            ) from error
        if error.error_code == WRONG:
            raise ConfigError(f"{uri} does not take this: {error.message}") from error
        raise


def _send(
    uri: str,
    method: str,
    path: str,
    told: Mapping[str, object] | None = None,
    credentials: Credentials | None = None,
) -> Any:
    """One request by MLflow's client, whose own settings hold; what is `told` is never logged."""
    creds: Any = get_default_host_creds(uri)  # type: ignore[no-untyped-call]
    if credentials is not None:
        creds.username, creds.password = credentials.username, credentials.password
        creds.token = creds.auth = None
    content = {("params" if method == "GET" else "json"): told} if told else {}
    return http_request(creds, path, method, **content)  # type: ignore[no-untyped-call]
