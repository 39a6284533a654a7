"""PostgreSQL and an MLflow server with users and an artifact proxy, on loopback, for tests.

They are real processes, which a test ends and starts again under the same address.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from needs import needed

PASSWORD = "p0st-gres#secret"  # noqa: S105 - of servers that live as long as the tests
ADMIN, ADMIN_PASSWORD = "admin", "ml-flow-admin-secret"
AUTH = """[mlflow]
default_permission = READ
database_uri = sqlite:///basic_auth.db
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
grant_default_workspace_access = false
auth_cache_ttl_seconds = 60
"""
"""MLflow's own, but for the cache, without which each request hashes the password anew."""
WAIT_S = 90


def postgres_programs():
    """Folder with `postgres` and `initdb`, or None; Debian keeps them out of the search path."""
    folders = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = next((folder / "postgres" for folder in folders), None) or shutil.which("postgres")
    return Path(found).resolve().parent if found else None


def needed_postgres():
    """The same folder, which a test cannot do without."""
    return postgres_programs() or needed("PostgreSQL: apt-get install postgresql")


@contextlib.contextmanager
def running_postgres(*databases):
    """A database server with these databases, removed at the end."""
    server = Postgres(needed_postgres())
    try:
        server.start()
        if databases:
            server.create(*databases)
        yield server
    finally:
        server.remove()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A process that can be killed, and started again where it was."""

    def __init__(self):
        self.port = free_port()
        self.process = None

    def start(self):
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, start_new_session=True, **self.options
            )
        deadline = time.monotonic() + WAIT_S
        while not self.answers():
            told = (self.folder / "server.log").read_text()[-3000:]
            assert self.process.poll() is None and time.monotonic() < deadline, told
            time.sleep(0.1)

    def kill(self):
        """Ends it and its children at once, as a crash would; harmless where it has ended."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Postgres(Server):
    """A database server with one user and a password; it refuses to run as root."""

    def __init__(self, programs):
        super().__init__()
        self.programs = programs
        self.folder = Path(
            tempfile.mkdtemp(prefix="hemaml-pg-")
        )  # pytest's own is closed to others
        self.options = {"cwd": self.folder}
        if os.getuid() == 0:
            other = _other_user()
            self.options |= {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}
            os.chown(self.folder, other.pw_uid, other.pw_gid)
        data = self.folder / "data"
        self.command = [
            programs / "postgres", "-D", data, "-p", str(self.port), "-k", self.folder,
            "-h", "127.0.0.1", "-c", "fsync=off",
        ]  # fmt: skip
        password = self.folder / "password"
        password.write_text(PASSWORD)
        make = [programs / "initdb", "-D", data, "-U", "hemaml", "--auth=scram-sha-256"]
        make += [f"--pwfile={password}", "--no-sync", "--encoding=UTF8", "--locale=C"]
        subprocess.run(make, check=True, capture_output=True, **self.options)
        password.unlink()

    def url(self, database, password=PASSWORD):
        told = password.replace("#", "%23")
        return f"postgresql+psycopg://hemaml:{told}@127.0.0.1:{self.port}/{database}"

    def connect(self):
        import psycopg

        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="hemaml", password=PASSWORD,
            dbname="postgres", autocommit=True, connect_timeout=5,
        )  # fmt: skip

    def answers(self):
        import psycopg

        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def create(self, *databases):
        with self.connect() as connection:
            for name in databases:
                connection.execute(f"create database {name}")

    def kill(self):
        super().kill()
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)

    def remove(self):
        self.kill()
        shutil.rmtree(self.folder)


def _other_user():
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise AssertionError("PostgreSQL refuses to run as root, and there is no user it could run as")


class MlflowServer(Server):
    """`mlflow server` that asks for a name and a password, and hands artifacts through."""

    def __init__(self, folder, database):
        super().__init__()
        self.folder = folder
        self.address = f"http://127.0.0.1:{self.port}"
        self.command = [
            sys.executable, "-W", "ignore", "-m", "mlflow", "server", "--app-name", "basic-auth",
            "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--allowed-hosts", f"127.0.0.1:{self.port}",
            "--serve-artifacts", "--artifacts-destination", str(folder / "artifacts"),
        ]  # fmt: skip
        (folder / "auth.ini").write_text(AUTH)
        environment = {
            "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
            "MLFLOW_BACKEND_STORE_URI": database,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "any-long-text-that-stays",
            "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN_PASSWORD,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        self.options = {"cwd": folder, "env": os.environ | environment}

    def answers(self):
        try:
            urllib.request.urlopen(f"{self.address}/health", timeout=1).close()
        except OSError:
            return False
        return True
