"""Downloads that go on where they broke off.

`pooch`, which fits otherwise, starts again from nothing after a cut; data sets of some gigabytes
over a hospital's network need HTTP Range requests (RFC 9110, section 14).
"""

import base64
import json
import string
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit

from hemaml.core.errors import DataError

Progress = Callable[[int, int | None], None]
"""Called with the bytes done and, where the server says so, the bytes in all."""

CHUNK = 1 << 18
MAX_FRUITLESS = 3
"""Attempts in a row that bring no byte before we give up."""
MAX_PAUSE = 60
"""Seconds that we wait at most before the next attempt, whatever the server asks for."""


def download(url: str, part: Path, *, progress: Progress, timeout: float = 60) -> None:
    """Downloads to `part`, going on from what an earlier call left there.

    What is there is used only if the server confirms that the file is unchanged (`If-Range`); the
    record for that lies beside it (`<part>.json`), without query, user and password of the URL.
    A cut connection is taken up again.

    Args:
        url: An http or https URL.
        part: Where the bytes go; stays for the next call until it is discarded.
        progress: Told of each chunk.
        timeout: Seconds without a byte after which a connection counts as cut.

    Raises:
        DataError: The server refuses, or the connection breaks again and again.
        OSError: `part` cannot be written.
    """
    fruitless = 0
    while True:
        before = _size(part)
        asked_pause = 0
        try:
            if _attempt(url, part, progress, timeout):
                return
            reason = "the connection was cut"
        except urllib.error.HTTPError as error:
            error.close()  # it holds the connection
            if error.code == 416:  # there is nothing behind what we have
                if error.headers.get("Content-Range") == f"bytes */{before}":
                    return
                discard(part)  # it is no beginning of the file any more
            elif error.code < 500 and error.code not in (408, 429):
                raise DataError(
                    f"{shown_url(url)} must be downloadable, but the server answers {error.code} "
                    f"({error.reason}). Correct the URL, or download by hand and import the file."
                ) from error
            reason = f"the server answers {error.code} ({error.reason})"
            asked = error.headers.get("Retry-After", "")
            asked_pause = int(asked) if asked.isdecimal() else 0  # it may also be a date
        except (urllib.error.URLError, HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        fruitless = 0 if _size(part) > before else fruitless + 1
        if fruitless >= MAX_FRUITLESS:
            raise DataError(
                f"{shown_url(url)} must be downloadable, but {reason}; {_size(part):,} bytes are "
                "kept. Run the same command again to go on."
            )
        time.sleep(min(max(0.2 * 4**fruitless, asked_pause), MAX_PAUSE))


def discard(part: Path) -> None:
    """Removes what `download` left at `part`, and the record beside it."""
    part.unlink(missing_ok=True)
    _record_path(part).unlink(missing_ok=True)


def shown_url(url: str) -> str:
    """The URL without what may be secret: user, password, query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{_host(parts)}{parts.path}"


def _attempt(url: str, part: Path, progress: Progress, timeout: float) -> bool:
    """One connection; whether the file is whole now."""
    request = _request(url)
    done = _size(part)
    validator = _recorded_validator(part, url)
    if done and validator:
        request.add_header("Range", f"bytes={done}-")
        request.add_header("If-Range", validator)
    with _network():
        response = urllib.request.urlopen(request, timeout=timeout)
    assert isinstance(response, HTTPResponse)
    with response:
        done = done if response.status == 206 else 0
        if done and not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            raise HTTPException("the server sends another range than was asked for")
        total = _total(response, done)
        if not done:
            # First of all: bytes of the old version beside a record of the new would be mixed.
            part.unlink(missing_ok=True)
            record = {"url": shown_url(url), "validator": _validator(response)}
            _record_path(part).write_text(json.dumps(record), encoding="utf-8")
        with part.open("ab") as file:
            while chunk := _read(response):
                file.write(chunk)
                done += len(chunk)
                progress(done, total)
    return total is None or done >= total


def _read(response: HTTPResponse) -> bytes:
    with _network():
        return response.read(CHUNK)


@contextmanager
def _network() -> Iterator[None]:
    """Makes each OSError a URLError, as urllib does on connecting; others are the disk's."""
    try:
        yield
    except urllib.error.URLError:
        raise
    except OSError as error:
        raise urllib.error.URLError(error) from error


def _request(url: str) -> urllib.request.Request:
    """A GET; user and password of the URL, which urllib would take for a host, as a header."""
    parts = urlsplit(url)
    plain = quote(parts._replace(netloc=_host(parts)).geturl(), safe=string.punctuation)
    request = urllib.request.Request(plain, headers={"User-Agent": "hemaml"})
    if parts.username is not None:
        account = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        token = base64.b64encode(account.encode()).decode()
        # Not to be sent to another host that the server may redirect to.
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request


def _host(parts: SplitResult) -> str:
    """Host and port as they are written; without user and password."""
    return parts.netloc.rpartition("@")[2]


def _total(response: HTTPResponse, done: int) -> int | None:
    length = response.headers.get("Content-Length")
    return int(length) + done if length is not None else None


def _validator(response: HTTPResponse) -> str | None:
    """What identifies this version of the file; weak tags may not be used for ranges."""
    tag = response.headers.get("ETag")
    if tag and not tag.startswith("W/"):
        return tag
    return response.headers.get("Last-Modified")


def _recorded_validator(part: Path, url: str) -> str | None:
    try:
        record = json.loads(_record_path(part).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return record["validator"] if record["url"] == shown_url(url) else None


def _record_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
