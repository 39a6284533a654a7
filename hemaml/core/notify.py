"""Tells a person or a system that something ended; its failures never fail the job.

`HEMAML_NOTIFY` is a URL, which gets the event as JSON by POST, or a command, which gets it on its
standard input.
"""

import http.client
import json
import logging
import shlex
import subprocess
import urllib.request
from collections.abc import Mapping

from hemaml.core import settings

logger = logging.getLogger(__name__)

TIMEOUT_S = 15


def notify(event: Mapping[str, object]) -> str:
    """Sends an event to where `HEMAML_NOTIFY` says.

    Args:
        event: Plain values; `event` names what happened (`sweep_end`, `promotion`, `rollback`).

    Returns:
        `sent`, `none` where nobody is to be told, or `failed: ` and why, which is also logged.
    """
    target = settings.notification_target()
    if target is None:
        return "none"
    body = json.dumps(event, default=str).encode()
    try:
        if target.startswith(("http://", "https://")):
            _post(target, body)
        else:
            _call(target, body)
    # ValueError: a URL or a command that cannot be parsed; HTTPException: what is no HTTP.
    except (
        OSError, ValueError, http.client.HTTPException, subprocess.SubprocessError
    ) as error:  # fmt: skip
        why = type(error).__name__  # its text may hold the URL, which may be a secret
        logger.warning("nobody was notified of %s: %s", event.get("event"), why)
        return f"failed: {why}"
    return "sent"


def _post(url: str, body: bytes) -> None:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S):
        pass


def _call(command: str, body: bytes) -> None:
    # Not to pipes, whose end a command that goes on in the background would keep us waiting for.
    quiet = subprocess.DEVNULL
    subprocess.run(
        shlex.split(command), input=body, check=True, timeout=TIMEOUT_S, stdout=quiet, stderr=quiet
    )
