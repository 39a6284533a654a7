"""Refusals and faults as `application/problem+json`: the rule, the value, the next action."""

import logging
from http import HTTPStatus

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from hemaml.core.errors import ConfigError, DataError, HemamlError, StoreError, UnknownName
from hemaml.data.problems import BadFile
from hemaml.serve.answers import Problem

PROBLEM_JSON = "application/problem+json"
LOG = logging.getLogger("hemaml.serve")


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
        self.rule, self.value, self.action = rule, value, action


def problem(
    status: int,
    detail: str,
    instance: str,
    *,
    rule: str = "",
    value: str | None = None,
    action: str | None = None,
) -> Problem:
    """The document of a refusal; what is not known of its parts is in the detail."""
    return Problem(
        type="about:blank",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        rule=rule or detail,
        value=value,
        action=action,
        instance=instance,
    )


def handle_problems(app: Flask) -> None:
    """Answers every error of the application with its problem."""
    app.register_error_handler(HemamlError, _told)
    app.register_error_handler(HTTPException, _of_http)
    app.register_error_handler(Exception, _fault)


def _told(error: HemamlError) -> Response:
    if isinstance(error, Refused):
        parts = {"rule": error.rule, "value": error.value, "action": error.action}
        return _response(error.status, str(error), parts, error.headers)
    if isinstance(error, BadFile):
        found = error.problem
        parts = {"rule": found.rule, "value": f"{found.file}: {found.found}"}
        parts["action"] = error.action
        return _response(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), parts)
    if isinstance(error, UnknownName):
        action = f"Name one of: {', '.join(error.known) or 'none is known'}."
        parts = {"rule": f"the {error.kind} must be known", "value": error.name, "action": action}
        return _response(HTTPStatus.NOT_FOUND, str(error), parts)
    if isinstance(error, ConfigError):
        return _response(HTTPStatus.BAD_REQUEST, str(error), {})
    if isinstance(error, DataError):
        return _response(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), {})
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    headers = {}
    if isinstance(error, StoreError):
        status, headers = HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "5"}
    LOG.error("%s %s: %s", request.method, request.path, error)
    return _response(status, str(error), {}, headers)


def _of_http(error: HTTPException) -> Response:
    """What Flask refuses by itself: a path, a method, a body that is too long."""
    code = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    headers = {name: text for name, text in error.get_headers() if name != "Content-Type"}
    return _response(HTTPStatus(code), error.description or error.name, {}, headers)


def _fault(error: Exception) -> Response:
    """A fault of ours: the traceback, which has no image in it, goes to the log alone."""
    LOG.error("%s %s failed", request.method, request.path, exc_info=error)
    detail = "the server has a fault of its own; its log has the traceback"
    return _response(HTTPStatus.INTERNAL_SERVER_ERROR, detail, {"action": "Tell who runs it."})


def _response(
    status: HTTPStatus, detail: str, parts: dict[str, str], headers: dict[str, str] | None = None
) -> Response:
    found = problem(status, detail, request.path, **parts)
    text = found.model_dump_json()
    return Response(text, status=status, mimetype=PROBLEM_JSON, headers=headers or {})
