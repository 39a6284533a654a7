"""Uploaded images: taken from a form, bounded, decoded; never written to a disk or a log."""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from io import BytesIO
from pathlib import PurePosixPath
from typing import IO

from flask import Request
from werkzeug.datastructures import FileStorage

from hemaml.core.types import UInt8Array
from hemaml.data.decode import decode_upload
from hemaml.serve.problems import Refused

NAME_CHARS = 80
"""Of a file's name that are told."""
FIELDS = 16
"""Parts of a form besides its images."""
FORM = "multipart/form-data"


class InMemory(Request):
    """A request whose files stay in memory: Werkzeug would put those of 500 kB onto the disk."""

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        return BytesIO()


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as it was sent.

    Attributes:
        index: Its place among the files of the request.
        name: What it is called, without folders and unprintable characters.
        content: Its bytes.
    """

    index: int
    name: str
    content: bytes

    def decoded(self, max_pixels: int) -> UInt8Array:
        """The image. Raises `BadFile` with place and name of the file."""
        name = f"images[{self.index}] ({self.name})"
        return decode_upload(self.content, name=name, max_pixels=max_pixels)


def uploads(request: Request, field: str, *, most: int) -> list[Upload]:
    """The files of a form's field.

    Args:
        request: With the form.
        field: `images`.
        most: Files at most.

    Raises:
        Refused: No form, no file, or too many.
    """
    if request.mimetype != FORM:
        raise Refused(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"images are sent as {FORM}",
            f"this is {request.mimetype or 'of no type'!r}",
            f"Send a form with the files in the field {field!r}.",
        )
    files: Sequence[FileStorage] = request.files.getlist(field)
    if not 1 <= len(files) <= most:
        few = not files
        raise Refused(
            HTTPStatus.BAD_REQUEST,
            f"a request has 1 to {most} files in the field {field!r}",
            f"this one has {len(files)}",
            "Add an image." if few else "Send fewer at once.",
        )
    return [Upload(i, told_name(f.filename), f.stream.read()) for i, f in enumerate(files)]


def told_name(name: str | None) -> str:
    """A file's name as it may be repeated: no folders, nothing unprintable, not too long."""
    last = PurePosixPath((name or "").replace("\\", "/")).name
    shown = "".join(c for c in last if c.isprintable())[:NAME_CHARS]
    return shown or "unnamed"
