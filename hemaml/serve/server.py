"""The process of `hemaml serve`: loads the champions, listens, and ends cleanly."""

import logging
import socket
from dataclasses import dataclass
from typing import Any

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import create_server
from waitress.task import ErrorTask
from waitress.utilities import RequestEntityTooLarge
from waitress.wasyncore import close_all

from hemaml.core import settings as environment
from hemaml.core.errors import ConfigError
from hemaml.nn.allocation import keep_freed_memory
from hemaml.serve.app import create_app
from hemaml.serve.champions import Champions
from hemaml.serve.headers import SECURITY
from hemaml.serve.limits import Desk
from hemaml.serve.problems import OF_THE_API, PROBLEM_JSON, Parts, problem
from hemaml.serve.registered import Registered
from hemaml.serve.settings import ServeSettings

SPARE_THREADS = 8
"""Besides those that wait for the desk: they answer what needs no model, and refuse."""
FORM_ROOM = 64 * 1024
"""Bytes of a form beside its files: the server's own limit lies so far above the application's."""
IN_MEMORY = 1 << 40
"""Bytes of a body or an answer that the server would put onto the disk: more than it takes."""
MOST_READ = 1 << 30
"""Bytes of a body that is too long which are read, to be thrown away."""
SILENT_S = 60
"""A connection on which nothing happens is closed."""


class ProblemTask(ErrorTask):  # type: ignore[misc]
    """What the server refuses itself (too long, no HTTP), told as the application tells it."""

    def execute(self) -> None:
        """Answers, and closes the connection."""
        error = self.request.error
        parts = Parts(
            "a request must be HTTP of a size that the server takes",
            f"{error.reason}: {error.body}",
            OF_THE_API,
        )
        told = problem(error.code, parts, self.request.path or "/")
        body = told.model_dump_json().encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers.extend([("Content-Type", PROBLEM_JSON), *SECURITY.items()])
        self.response_headers.append(("Content-Length", str(len(body))))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Patient(HTTPRequestParser):  # type: ignore[misc]
    """Reads a body that is too long to its end, keeping none of it, before it is refused.

    A browser that is answered while it sends sees a broken connection, not the answer.
    """

    unread = 0

    def received(self, data: bytes) -> int:
        """How much of the data belongs to this request."""
        if self.unread:
            used = min(self.unread, len(data))
            self.unread -= used
            self.completed = not self.unread
            return used
        taken: int = super().received(data)
        if isinstance(self.error, RequestEntityTooLarge) and not self._asks_before():
            self.unread = min(self.content_length, MOST_READ)
            self.completed = not self.unread
        return taken

    def _asks_before(self) -> bool:
        """Whether the client waits for leave to send its body."""
        return bool(self.expect_continue)


class ProblemChannel(HTTPChannel):  # type: ignore[misc]
    """A connection that tells refusals as problems."""

    parser_class = Patient
    error_task_class = ProblemTask


@dataclass(frozen=True, slots=True)
class Running:
    """A server that listens, and what it is made of.

    Attributes:
        server: Of waitress.
        champions: The models.
        desk: Where the work is done.
        address: Where to ask.
    """

    server: Any
    champions: Champions
    desk: Desk
    address: str

    def run(self) -> None:
        """Answers until the process is told to end, or `stop` is called."""
        try:
            self.server.run()
        finally:
            self.server.close()
            self.champions.close()
            self.desk.close()

    def stop(self) -> None:
        """Ends `run` from another thread, once what is being answered has been."""
        self.server.task_dispatcher.shutdown()
        self.server.trigger.pull_trigger(lambda: close_all(self.server._map))


def start(settings: ServeSettings) -> Running:
    """Loads the champions of the store in use, and listens.

    Raises:
        StoreError: The store is away.
        UnknownName: A model that was asked for does not exist.
    """
    keep_freed_memory()
    champions = Champions(
        Registered(environment.tracking_uri(), settings.models), settings.look_every
    )
    champions.start()
    return listen(champions, settings)


def listen(champions: Champions, settings: ServeSettings) -> Running:
    """A server of these models, which answers once it runs.

    Raises:
        ConfigError: The address is taken, or is none of this machine.
    """
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # the desk bounds the queue
    desk = Desk(settings.queue)
    try:
        server = create_server(
            create_app(champions, desk, settings),
            host=_address(settings.host, settings.port),
            port=settings.port,
            threads=settings.queue + SPARE_THREADS,
            connection_limit=settings.connections,
            channel_timeout=SILENT_S,
            max_request_body_size=settings.bytes + FORM_ROOM,
            inbuf_overflow=IN_MEMORY,
            outbuf_overflow=IN_MEMORY,
            ident=None,
        )
    except OSError as error:
        raise ConfigError(
            f"the server must be able to listen at {settings.host}:{settings.port}, but {error}. "
            "Name another with --port or --host."
        ) from error
    server.channel_class = ProblemChannel
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{shown}:{server.effective_port}"
    return Running(server, champions, desk, address)


def _address(host: str, port: int) -> str:
    """The one address to listen at: of a name with several, as localhost is, an IPv4 one if any."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    *_, place = min(found, key=lambda info: info[0] != socket.AF_INET)
    return str(place[0])
