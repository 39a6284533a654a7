"""The served stack on this machine, without containers: `make stack`.

PostgreSQL, an MLflow server with users, a Ray head, optuna-dashboard and `hemaml serve`, each by
the entry point that its container runs, on the loopback address and on free ports; MLFLOW_PORT=5000
and the like name others. The folder keeps all they know, with the secrets and ports of the first
start, so that a later one finds everything again and is found where it was. A server that dies is
started again. Ctrl-C or SIGTERM ends all, a second one without waiting.
ARTIFACTS=s3://BUCKET/FOLDER keeps artifacts there, with boto3's own variables for who and where.
HEMAML_BIND=ADDRESS, one of this machine's, lets other machines in.

    python docker/stack.py FOLDER [--database]
"""

import argparse
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

ENTRYPOINTS = Path(__file__).resolve().parent / "entrypoints"
SECRETS = (
    "POSTGRES_PASSWORD", "STUDIES_PASSWORD", "MLFLOW_AUTH_ADMIN_PASSWORD",
    "MLFLOW_FLASK_SERVER_SECRET_KEY", "RAY_AUTH_TOKEN", "HEMAML_PAGE_PASSWORD",
    "HEMAML_SERVE_TOKEN",
)  # fmt: skip
PORTS = ("POSTGRES_PORT", "MLFLOW_PORT", "RAY_PORT", "STUDIES_PORT", "PAGE_PORT")
START_S, END_S = 120, 30
PAUSE_S, STEADY_S, HOPELESS_S = 5, 10, 180
"""Between two starts of a dead server; until it counts as well again; until the stack gives up.
A server may end right after its start because one that it needs is itself just starting again."""


class Stack:
    """The servers of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.host = os.environ.get("HEMAML_BIND") or "127.0.0.1"
        self.settings = self._kept_settings()
        self.servers: dict[str, subprocess.Popen[bytes]] = {}
        self.arguments = {"database": [str(self.folder / "database")], "ray": ["head"]}
        self.started: dict[str, float] = {}

    def start_database(self) -> None:
        """Starts PostgreSQL."""
        self._start("database")
        self._await("database", "POSTGRES_PORT")

    def start_others(self) -> None:
        """Starts what needs PostgreSQL, in the order in which the servers need each other."""
        for name in ("mlflow", "ray", "studies"):
            self._start(name)
        self._await("mlflow", "MLFLOW_PORT")
        self._start("page", "account")
        self._await("ray", "RAY_PORT")
        self._await("studies", "STUDIES_PORT")
        self._await_end("page", "its account could not be made")
        self._start("page")  # it asks MLflow for the champions, and nobody waits for it here

    def watch(self) -> None:
        """Returns never: starts again what has ended, and fails where that does not last."""
        down: dict[str, float] = {}
        while True:
            for name, server in self.servers.items():
                now = time.monotonic()
                ran = now - self.started[name]
                if server.poll() is None:
                    if ran > STEADY_S:
                        down.pop(name, None)
                elif now - down.setdefault(name, now) > HOPELESS_S:
                    self._fail(name, f"it has ended again and again for {HOPELESS_S} s")
                elif ran > PAUSE_S:
                    print(f"{name} ended with {server.returncode}: started again", flush=True)
                    _signal(server, signal.SIGKILL)  # children that it has left
                    self._start(name)
            time.sleep(0.5)

    def stop(self) -> None:
        """Ends the servers, those that others need last; interrupted, all of them at once."""
        try:
            for name, server in reversed(self.servers.items()):
                _signal(server, signal.SIGINT if name == "database" else signal.SIGTERM)
                deadline = time.monotonic() + END_S
                while _signal(server, 0) and time.monotonic() < deadline:
                    time.sleep(0.1)
        finally:
            for server in self.servers.values():
                _signal(server, signal.SIGKILL)
                server.wait()

    def clients(self) -> tuple[Path, Path]:
        """Two files, for `. FILE`, that make hemaml use this stack; only their owner can read them.

        Returns:
            That of the administrator, and that which users are given, who log in by themselves.
        """
        users = {
            "MLFLOW_TRACKING_URI": self.settings["MLFLOW_TRACKING_URI"],
            "HEMAML_STUDY_STORAGE": self._database("studies", "studies", "STUDIES_PASSWORD"),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.settings["RAY_AUTH_TOKEN"],
        }
        admin = {
            **users,
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": self.settings["MLFLOW_AUTH_ADMIN_PASSWORD"],
            "HEMAML_RECORD_DATABASE": self._database("mlflow", "hemaml", "POSTGRES_PASSWORD"),
            "HEMAML_USERS_DATABASE": self._database("mlflow_users", "hemaml", "POSTGRES_PASSWORD"),
        }
        return (
            _write(self.folder / "admin.env", admin, export="export "),
            _write(self.folder / "users.env", users, export="export "),
        )

    def _database(self, name: str, user: str, password: str) -> str:
        who = f"{user}:{quote(self.settings[password], safe='')}"
        return f"postgresql+psycopg://{who}@{self.host}:{self.settings['POSTGRES_PORT']}/{name}"

    def _kept_settings(self) -> dict[str, str]:
        """Secrets and ports of the first start; ports that are named now go before."""
        path = self.folder / ".env"
        lines = path.read_text().splitlines() if path.exists() else []
        known = dict(shlex.split(line)[0].split("=", 1) for line in lines if "=" in line)
        made = {name: known.get(name) or secrets.token_hex(24) for name in SECRETS}
        wanted = {name: os.environ.get(name) or known.get(name) for name in PORTS}
        ports = {name: _port(self.host_of(name), name, port) for name, port in wanted.items()}
        _write(path, {**made, **ports})
        artifacts = os.environ.get("ARTIFACTS") or str(self.folder / "artifacts")
        record = f"http://{self.host}:{ports['MLFLOW_PORT']}"
        where = {"HEMAML_BIND": self.host, "POSTGRES_HOST": self.host, "ARTIFACTS": artifacts}
        return {**made, **ports, **where, "MLFLOW_TRACKING_URI": record}

    def _start(self, name: str, *arguments: str) -> None:
        programs = Path(sys.executable).parent
        environment = {
            **os.environ, **self.settings, "PATH": f"{programs}:{os.environ['PATH']}"
        }  # fmt: skip
        if name == "studies":
            environment["HEMAML_BIND"] = self.host_of("STUDIES_PORT")
        with (self.folder / f"{name}.log").open("ab") as log:
            self.servers[name] = subprocess.Popen(
                [str(ENTRYPOINTS / f"{name}.sh"), *(arguments or self.arguments.get(name, ()))],
                stdout=log, stderr=log, env=environment, start_new_session=True, cwd=self.folder,
            )  # fmt: skip
        self.started[name] = time.monotonic()

    def host_of(self, port: str) -> str:
        """Where the server of a port listens."""
        return "127.0.0.1" if port == "STUDIES_PORT" else self.host  # it asks nobody for a password

    def _await(self, name: str, port: str) -> None:
        deadline = time.monotonic() + START_S
        while not _listens(self.host_of(port), int(self.settings[port])):
            if self.servers[name].poll() is not None:
                self._fail(name, f"it ended with {self.servers[name].returncode}")
            if time.monotonic() > deadline:
                self._fail(name, f"port {self.settings[port]} is silent after {START_S} s")
            time.sleep(0.1)

    def _await_end(self, name: str, otherwise: str) -> None:
        try:
            if self.servers[name].wait(START_S):
                self._fail(name, otherwise)
        except subprocess.TimeoutExpired:
            self._fail(name, f"{otherwise} in {START_S} s")

    def _fail(self, name: str, why: str) -> None:
        log = self.folder / f"{name}.log"
        last = log.read_text(errors="replace").strip().splitlines()[-5:]
        raise SystemExit("\n".join([*last, f"error: {name} must run, but {why}; see {log}."]))


def _signal(server: "subprocess.Popen[bytes]", number: int) -> bool:
    """Signals a server with all its children; whether one was left."""
    server.poll()  # one that has ended counts until somebody asks for its end
    try:
        os.killpg(server.pid, number)
    except ProcessLookupError:
        return False
    return True


def _write(path: Path, values: dict[str, str], *, export: str = "") -> Path:
    new = path.with_name(f"{path.name}.new")  # a full disk leaves what was there
    new.touch(mode=0o600)
    new.chmod(0o600)
    lines = [f"{export}{name}={shlex.quote(value)}" for name, value in values.items()]
    new.write_text("\n".join([*lines, ""]))
    return new.replace(path)


def _port(host: str, name: str, wanted: str | None) -> str:
    """The port that is wanted, which must be free, else any that is."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            probe.bind((host, int(wanted or 0)))
        except (OSError, ValueError, OverflowError) as error:
            raise SystemExit(
                f"error: {name} must be a free port of {host}, but got {wanted}: {error}. End what "
                f"listens there, or name another port: {name}=NUMBER make stack ..."
            ) from None
        return str(probe.getsockname()[1])


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def main() -> None:
    """Starts the stack, says where it is, and ends it when told to."""
    parser = argparse.ArgumentParser(description="The served stack on this machine.")
    parser.add_argument("folder", type=Path, help="what the servers keep")
    parser.add_argument(
        "--database", action="store_true", help="PostgreSQL alone, for `hemaml upgrade`"
    )
    told = parser.parse_args()
    stack = Stack(told.folder)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        stack.start_database()
        admin, users = (shlex.quote(str(path)) for path in stack.clients())
        if told.database:
            print(f"use it:  . {admin} && hemaml upgrade", flush=True)
            stack.watch()
        stack.start_others()
        for name, port, what in (
            ("MLflow", "MLFLOW_PORT", "user admin, password in .env of the folder"),
            ("page", "PAGE_PORT", "hemaml serve, asks for HEMAML_SERVE_TOKEN of the same file"),
            ("studies", "STUDIES_PORT", "optuna-dashboard, asks nobody for a password"),
        ):
            print(f"{name:8} http://{stack.host_of(port)}:{stack.settings[port]}  {what}")
        ray = f"{stack.host}:{stack.settings['RAY_PORT']}"
        print(f"{'Ray':8} {ray}")
        print(f"users:   {users}  to be given to them; hemaml login asks who they are")
        print(f"use it:  . {admin}")
        print(f"         hemaml sweep EXPERIMENT --engine ray --address {ray}", flush=True)
        stack.watch()
    except KeyboardInterrupt:
        pass
    finally:
        stack.stop()


if __name__ == "__main__":
    main()
