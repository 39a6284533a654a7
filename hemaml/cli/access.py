"""Commands on an MLflow server with users: `login`, `logout`, `user`."""

import getpass
import os
import sys
from typing import Annotated

import typer

from hemaml.cli.show import print_table
from hemaml.core.errors import ConfigError

app = typer.Typer()
users = typer.Typer(help="The users of an MLflow server.", no_args_is_help=True)

Url = Annotated[
    str, typer.Argument(help="http://HOST:PORT or https://HOST.", envvar="MLFLOW_TRACKING_URI")
]
Stdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input.")
]


@app.command()
def login(
    url: Url,
    user: Annotated[str | None, typer.Option(help="Default: asked for.")] = None,
    password_stdin: Stdin = False,
) -> None:
    """Keep name and password for an MLflow server in the keyring of the operating system."""
    from hemaml import access

    access.check_login(url)  # before anybody types a password
    name = user or _asked_name(password_stdin)
    address = access.login(url, name, _password(f"Password of {name}", stdin=password_stdin))
    print(f"logged in to {address} as {name}; to use it: export MLFLOW_TRACKING_URI={address}")
    if os.environ.get("MLFLOW_TRACKING_USERNAME"):
        print("MLFLOW_TRACKING_USERNAME is set here and goes first: unset it to use the login")
    if address.startswith("http://") and not _is_local(address):
        print("http:// sends passwords readable to all on the way: serve it by https://, or tunnel")


@app.command()
def logout(url: Url) -> None:
    """Remove what the keyring has for an MLflow server."""
    from hemaml import access

    print(f"logged out of {access.logout(url)}")


@users.command("add")
def user_add(
    name: Annotated[str, typer.Argument(help="Of the new user.")],
    role: Annotated[str, typer.Option(help="reader, trainer or promoter.")],
    password_stdin: Stdin = False,
) -> None:
    """Make a user: readers look, trainers also sweep, promoters also register and promote."""
    from hemaml import access

    password = _password(f"Password for {name}", stdin=password_stdin, twice=True)
    access.add_user(name, password, role)
    print(f"{name} is {role}; the password can be changed in the UI")


@users.command("list")
def user_list() -> None:
    """All users with their roles."""
    from hemaml import access

    rows = [[user.name, ", ".join(user.roles) or "none"] for user in access.users()]
    print_table(["user", "role"], rows)


@users.command("remove")
def user_remove(name: Annotated[str, typer.Argument(help="Of the user.")]) -> None:
    """Remove a user; what they recorded stays."""
    from hemaml import access

    access.remove_user(name)
    print(f"{name} is removed")


def _asked_name(password_stdin: bool) -> str:
    if password_stdin:
        raise ConfigError("`--password-stdin` asks nothing, so it needs `--user NAME`.")
    name: str = typer.prompt("User", default=getpass.getuser())
    return name


def _password(prompt: str, *, stdin: bool, twice: bool = False) -> str:
    """A password that is typed without being shown, or the first line of standard input."""
    if stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = typer.prompt(prompt, hide_input=True, confirmation_prompt=twice)
    else:
        raise ConfigError(
            "a password is typed at a terminal, but standard input is none. "
            "Give --password-stdin to read it from there."
        )
    if not password:
        raise ConfigError("a password has at least one character, but it is empty. Try again.")
    return password


def _is_local(address: str) -> bool:
    from urllib.parse import urlsplit

    return urlsplit(address).hostname in ("127.0.0.1", "localhost", "::1")
