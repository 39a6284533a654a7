"""Refusals and faults as `application/problem+json`: the rule, the value, the next action."""

import logging
from http import HTTPStatus
from typing import NamedTuple

from flask import Flask, Response, current_app, request
from werkzeug.exceptions import HTTPException

from hemaml.core.errors import ConfigError, DataError, HemamlError, StoreError, UnknownName
from hemaml.data.problems import BadFile
from hemaml.serve.answers import Problem

PROBLEM_JSON = "application/problem+json"
OF_THE_API = "Ask /openapi.json for what there is."
LOG = logging.getLogger("hemaml.serve")


class Parts(NamedTuple):
    """Of a refusal: what must hold, what was found instead, what to do next."""

    rule: str
    value: str | None = None
    action: str | None = None


class Refused(HemamlError):
    """A request that gets no answer, and why.

    Args:
        status: Of HTTP.
        rule: What must hold.
        value: What was found instead.
        action: What to do next, a whole sentence.
        headers: To be sent along.
    """

    def __init__(
        self,
        status: HTTPStatus,
        rule: str,
        value: str,
        action: str,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(f"{rule}, but {value}. {action}")
        self.status, self.headers = status, headers or {}
        self.parts = Parts(rule, value, action)


def problem(status: int, parts: Parts, instance: str, detail: str | None = None) -> Problem:
    """The document of a refusal; its detail is its parts in a sentence, if there is no better."""
    return Problem(
        type="about:blank",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail or f"{parts.rule}, but got {parts.value}. {parts.action}",
        **parts._asdict(),
        instance=instance,
    )


def handle_problems(app: Flask) -> None:
    """Answers every error of the application with its problem."""
    app.register_error_handler(HemamlError, _told)
    app.register_error_handler(HTTPException, _of_http)
    app.register_error_handler(Exception, _fault)


def _told(error: HemamlError) -> Response:
    told, headers = str(error), {}
    status, parts = HTTPStatus.INTERNAL_SERVER_ERROR, _parted(told)
    match error:
        case Refused():
            status, parts, headers = error.status, error.parts, error.headers
        case BadFile():
            status, found = HTTPStatus.UNPROCESSABLE_ENTITY, error.problem
            parts = Parts(found.rule, f"{found.file}: {found.found}", error.action)
        case UnknownName():
            action = f"Name one of: {', '.join(error.known) or 'none is known'}."
            status = HTTPStatus.NOT_FOUND
            parts = Parts(f"the {error.kind} must be known", error.name, action)
        case ConfigError():
            status = HTTPStatus.BAD_REQUEST
        case DataError():
            status = HTTPStatus.UNPROCESSABLE_ENTITY
        case StoreError():
            status, headers = HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "5"}
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, Refused):
        LOG.error("%s %s: %s", request.method, request.path, told)
    return _response(status, parts, told, headers)


def _parted(told: str) -> Parts:
    """The parts of a message of ours: "RULE, but VALUE. ACTION"."""
    rule, _, rest = told.partition(", but ")
    value, _, action = rest.partition(". ")
    return Parts(rule, value, action) if action else Parts(told)


def _of_http(error: HTTPException) -> Response:
    """What Flask refuses by itself: a path, a method, a body that is too long."""
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    headers = {name: text for name, text in error.get_headers() if name != "Content-Type"}
    parts = _parts_of_http(error, status)
    return _response(status, parts, headers=headers)


def _parts_of_http(error: HTTPException, status: HTTPStatus) -> Parts:
    asked = f"{request.method} {request.path}"
    match status:
        case HTTPStatus.NOT_FOUND:
            return Parts("an address must be one of the API's", request.path, OF_THE_API)
        case HTTPStatus.METHOD_NOT_ALLOWED:
            methods = ", ".join(getattr(error, "valid_methods", None) or ())
            return Parts(f"this address is asked by {methods}", asked, "Ask by one of these.")
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            limits = current_app.config
            most = f"{limits['MAX_CONTENT_LENGTH']:,} bytes in {limits['MAX_FORM_PARTS']} parts"
            sent = f"{request.content_length or 0:,} bytes"
            return Parts(f"a request has at most {most}", sent, "Send fewer or smaller images.")
        case HTTPStatus.TOO_MANY_REQUESTS:
            rule = f"an address may ask at most {error.description}"
            return Parts(rule, "more", "Ask again after the seconds that Retry-After tells.")
    return Parts((error.description or error.name).rstrip("."), asked, OF_THE_API)


def _fault(error: Exception) -> Response:
    """A fault of ours: the traceback, which has no image in it, goes to the log alone."""
    LOG.error("%s %s failed", request.method, request.path, exc_info=error)
    detail = "the server has a fault of its own; its log has the traceback"
    parts = Parts("a request must get an answer", "a fault of its own", "Tell who runs the server.")
    return _response(HTTPStatus.INTERNAL_SERVER_ERROR, parts, detail)


def _response(
    status: HTTPStatus,
    parts: Parts,
    detail: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    text = problem(status, parts, request.path, detail).model_dump_json()
    return Response(text, status=status, mimetype=PROBLEM_JSON, headers=headers or {})
