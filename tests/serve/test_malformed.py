"""Five hundred uploads that are no pictures: all refused, nothing left behind."""

import gc
import os
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import psutil
import pytest
from serve.fakes import PREDICT, FakeRegistry, form, picture, served

KINDS = ("PNG", "JPEG", "BMP", "TIFF")
EACH = 500
GROWTH_MB = 60
"""Of memory, after the first hundred: less than two of the larger pictures."""


def png_bomb(width, height):
    """A small PNG that claims, and holds, very many pixels."""

    def chunk(kind, data):
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    packer = zlib.compressobj(9)
    row = bytes(1 + width // 8)
    rows = b"".join(packer.compress(row) for _ in range(min(height, 4000))) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, data) for kind, data in ((b"IHDR", head), (b"IDAT", rows), (b"IEND", b""))
    )


def tiff_loop():
    """A TIFF whose directory follows itself."""
    return b"II*\0" + struct.pack("<IHHHIIHHIII", 8, 2, 256, 4, 1, 20, 257, 4, 1, 20, 8)


def faulty(rng, index):
    """The content of one file, and the name that it is sent under."""
    whole = picture(KINDS[index % 4], side=40, seed=index)
    cut = int(rng.integers(4, len(whole) // 2))
    names = (
        "a.png",
        "../../../etc/passwd",
        "C:\\x\\y.png",
        "\u202egnp.exe",
        "",
        "x" * 5000 + ".png",
    )
    made = {
        0: lambda: whole[:cut],
        1: lambda: rng.bytes(int(rng.integers(1, 5000))),
        2: lambda: b"",
        3: lambda: png_bomb(60_000, 60_000),
        4: lambda: whole[:4] + rng.bytes(800),
        5: lambda: b"%PDF-1.7\n" + rng.bytes(300),
        6: lambda: b"GIF89a" + rng.bytes(300),
        7: lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n" + rng.bytes(30),
        8: lambda: struct.pack("<2sIHHIIiiHH", b"BM", 60, 0, 0, 54, 40, 2**30, -(2**30), 1, 24),
        9: lambda: tiff_loop(),
        10: lambda: b"\xff\xd8\xff\xe0" + b"\0\x10JFIF\0" + rng.bytes(100),
        11: lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    }
    return made[index % 12](), names[index % 6]


def footprint():
    """Open files of this process, files in the folder for temporary ones, resident megabytes."""
    gc.collect()
    process = psutil.Process()
    temporary = {p.name for p in Path(tempfile.gettempdir()).iterdir()}
    return process.num_fds(), temporary, process.memory_info().rss / 1e6


@pytest.mark.slow
def test_five_hundred_uploads_are_refused_and_leave_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rng = np.random.default_rng(0)
    with served(FakeRegistry()) as client:
        before = None
        for index in range(EACH):
            content, name = faulty(rng, index)
            reply = client.send(PREDICT, [("images", name, content)])
            assert 400 <= reply.status < 500, (index, reply.status, reply.body)
            assert reply.body["rule"] and "/etc" not in reply.body["detail"]
            if index == 100:
                before = footprint()
        after = footprint()
        assert client.predict(picture()).status == 200
    assert abs(after[0] - before[0]) <= 4, "open files"
    assert after[1] == before[1] == set(), "temporary files"
    assert after[2] - before[2] < GROWTH_MB, "memory"
    assert "Traceback" not in caplog.text


@pytest.mark.slow
def test_large_uploads_stay_in_memory(tmp_path, monkeypatch):
    """Werkzeug, and the server, would both put them onto the disk."""
    seen, opened = [], os.open

    def watched(path, *args, **kwargs):
        seen.append(str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tempfile._os, "open", watched)
    with served(FakeRegistry()) as client:
        reply = client.predict(*[picture("BMP", side=1200)] * 5)
        assert reply.status == 200 and len(reply.body["results"]) == 5
    assert not [path for path in seen if path.startswith(str(tmp_path))]
    with tempfile.TemporaryFile():
        pass
    assert [path for path in seen if path.startswith(str(tmp_path))], "the watch sees such files"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"--x", b"nonsense", form([("images", "a", picture())], {})[0][:-30],
        form([("images", "a.png", b"x")], {f"f{i}": "y" for i in range(2000)})[0],
        form([("images", "a.png", b"x")], {"model": "m" * 2_000_000})[0],
    ],
)  # fmt: skip
def test_forms_that_are_no_forms(body):
    with served(FakeRegistry()) as client:
        kind = "multipart/form-data; boundary=----hemaml-boundary"
        assert 400 <= client.ask(PREDICT, body, {"Content-Type": kind}).status < 500
        assert (
            400 <= client.ask(PREDICT, body, {"Content-Type": "multipart/form-data"}).status < 500
        )
        assert client.predict(picture()).status == 200
