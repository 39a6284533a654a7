import errno
import hashlib
import http.client
import http.server
import random
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from hemaml.core.errors import ConfigError, DataError, StoreError
from hemaml.data import archives, download, importing
from hemaml.data.importing import import_dataset, shown_source

FILES = {"Dataset 1/001.bmp": random.Random(0).randbytes(600_000), "labels.csv": b"1,2\n"}


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """The seconds that a download would have waited."""
    seconds: list[float] = []
    monkeypatch.setattr(download.time, "sleep", seconds.append)
    return seconds


@pytest.fixture
def archive(tmp_path):
    return make_zip(tmp_path / "set.zip", FILES)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "out" / "cells"


def make_zip(path: Path, files, method=zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def assert_nothing_left(target: Path) -> None:
    assert not target.exists()
    assert not target.parent.exists() or list(target.parent.iterdir()) == []


class Server:
    """A web server of one file that supports ranges and can cut connections."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.cut_after: list[int] = []  # bytes of each of the next answers
        self.ranges: list[str | None] = []
        self.etag = '"1"'
        self.status: int | None = None
        self.retry_after: str | None = None
        self.authorization: str | None = None
        self.path = ""
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *args):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/set.zip"

    def answer(self, handler) -> None:
        asked = handler.headers.get("Range")
        self.ranges.append(asked)
        self.authorization = handler.headers.get("Authorization")
        self.path = handler.path
        if self.status:
            handler.send_response(self.status)
            if self.retry_after:
                handler.send_header("Retry-After", self.retry_after)
            handler.end_headers()
            return
        start = 0
        if asked and handler.headers.get("If-Range") == self.etag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(self.body):
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{len(self.body)}")
                handler.end_headers()
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/*")
        else:
            handler.send_response(200)
        handler.send_header("ETag", self.etag)
        handler.send_header("Content-Length", str(len(self.body) - start))
        handler.end_headers()
        cut = self.cut_after.pop(0) if self.cut_after else len(self.body)
        handler.wfile.write(self.body[start : start + cut])


@pytest.fixture
def server(archive):
    server = Server(archive.read_bytes())
    yield server
    server.http.shutdown()
    server.http.server_close()


def test_a_folder_is_copied(tmp_path, target):
    source = tmp_path / "source"
    for name, data in FILES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    assert import_dataset(str(source), target) == target
    assert content(target) == FILES
    assert [p.name for p in target.parent.iterdir()] == ["cells"]


@pytest.mark.parametrize("as_url", [False, True])
def test_a_zip_is_unpacked(archive, target, as_url):
    import_dataset(archive.as_uri() if as_url else str(archive), target)
    assert content(target) == FILES
    assert target.stat().st_mode & 0o777 == 0o755


def test_a_sole_folder_is_unwrapped_and_what_macos_adds_is_left_out(tmp_path, target):
    files = {f"set-main/{name}": data for name, data in FILES.items()}
    junk = {"__MACOSX/set-main/._labels.csv": b"x", "set-main/.DS_Store": b"x"}
    import_dataset(str(make_zip(tmp_path / "a.zip", files | junk)), target)
    assert content(target) == FILES


def test_a_download_reports_progress(server, target):
    seen = []
    import_dataset(server.url, target, progress=lambda done, total: seen.append((done, total)))
    assert content(target) == FILES
    assert seen[-1] == (len(server.body), len(server.body))
    assert [p.name for p in target.parent.iterdir()] == ["cells"]


def test_a_bar_can_be_shown(server, target, capsys):
    import_dataset(server.url, target, progress=True)
    assert capsys.readouterr().out == ""


def test_a_cut_connection_goes_on_where_it_broke_off(server, target):
    half = len(server.body) // 2
    server.cut_after = [half]
    import_dataset(server.url, target, checksum=hashlib.sha256(server.body).hexdigest())
    assert content(target) == FILES
    assert server.ranges == [None, f"bytes={half}-"]


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(server, target):
    server.cut_after = [1000, 0, 0, 0]
    with pytest.raises(DataError, match="1,000 bytes are kept. Run the same command again"):
        import_dataset(server.url, target)
    assert not target.exists()
    import_dataset(server.url, target)
    assert server.ranges[-1] == "bytes=1000-"
    assert content(target) == FILES


def test_a_file_that_changed_meanwhile_is_downloaded_from_its_start(server, target):
    server.cut_after = [1000, 0, 0, 0]
    with pytest.raises(DataError):
        import_dataset(server.url, target)
    server.etag = '"2"'
    import_dataset(server.url, target)
    assert content(target) == FILES


def test_a_version_begun_anew_is_never_mixed_with_the_old(server, tmp_path, monkeypatch):
    part = tmp_path / "part"
    server.cut_after = [1000, 0, 0, 0]
    with pytest.raises(DataError):
        download.download(server.url, part, progress=lambda done, total: None)
    server.etag = '"2"'
    server.body = server.body[::-1]

    def killed(self, *args, **options):
        write_text(self, *args, **options)
        raise KeyboardInterrupt

    write_text = Path.write_text
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "write_text", killed)
        download.download(server.url, part, progress=lambda done, total: None)
    download.download(server.url, part, progress=lambda done, total: None)
    assert part.read_bytes() == server.body


@pytest.mark.parametrize("error", [StoreError("full"), KeyboardInterrupt()])
def test_a_whole_download_is_kept_until_it_is_unpacked(server, target, monkeypatch, error):
    def broken(*args, **options):
        raise error

    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(importing, "unpack_zip", broken)
        import_dataset(server.url, target)
    sent = []
    import_dataset(server.url, target, progress=lambda done, total: sent.append(done))
    assert content(target) == FILES
    assert server.ranges == [None, f"bytes={len(server.body)}-"]
    assert sent == []
    assert [p.name for p in target.parent.iterdir()] == ["cells"]


def test_what_is_longer_than_the_file_is_downloaded_anew(server, tmp_path):
    part = tmp_path / "part"
    download.download(server.url, part, progress=lambda done, total: None)
    with part.open("ab") as file:
        file.write(b"more")
    download.download(server.url, part, progress=lambda done, total: None)
    assert part.read_bytes() == server.body
    assert server.ranges == [None, f"bytes={len(server.body) + 4}-", None]


def test_a_network_that_goes_away_is_no_matter_of_the_disk(server, target, monkeypatch):
    def unreachable(self, amount=None):
        raise OSError(errno.EHOSTUNREACH, "No route to host")

    with monkeypatch.context() as patch:
        patch.setattr(http.client.HTTPResponse, "read", unreachable)
        with pytest.raises(DataError, match="No route to host; 0 bytes are kept"):
            import_dataset(server.url, target)
    assert len(server.ranges) == download.MAX_FRUITLESS


def test_a_disk_that_cannot_take_the_download_is_not_tried_again(server, target, monkeypatch):
    path_open = Path.open

    def full(self, mode="r", *args, **options):
        if mode == "ab":
            raise OSError(errno.ENOSPC, "No space left on device")
        return path_open(self, mode, *args, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(StoreError, match="No space left on device"):
        import_dataset(server.url, target)
    assert len(server.ranges) == 1


def test_a_missing_file_is_named_without_the_secrets_of_its_url(server, target):
    server.status = 404
    with pytest.raises(DataError, match="answers 404") as error:
        import_dataset(server.url.replace("//", "//user:secret@") + "?token=secret", target)
    assert "secret" not in str(error.value)
    assert_nothing_left(target)


def test_user_and_password_are_sent_and_not_kept(server, target):
    server.cut_after = [1000, 0, 0, 0]
    with pytest.raises(DataError):
        import_dataset(server.url.replace("//", "//me:p%40w@") + "?token=secret", target)
    assert server.authorization == "Basic bWU6cEB3"
    record = target.with_name(".cells.part.json").read_text()
    assert "secret" not in record
    assert "p%40w" not in record


@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_server_in_trouble_is_asked_again_and_given_up(server, target, status):
    server.status = status
    with pytest.raises(DataError, match=f"answers {status}.*Run the same command again"):
        import_dataset(server.url, target)
    assert len(server.ranges) == download.MAX_FRUITLESS


@pytest.mark.parametrize(
    ("retry_after", "waited"),
    [
        ("7", [7, 7]),
        ("86400", [download.MAX_PAUSE] * 2),
        ("Fri, 31 Dec 1999 23:59:59 GMT", [0.8, 3.2]),
    ],
)
def test_a_server_is_left_alone_as_long_as_it_asks_for(server, target, pauses, retry_after, waited):
    server.status, server.retry_after = 429, retry_after
    with pytest.raises(DataError, match="answers 429"):
        import_dataset(server.url, target)
    assert pauses == pytest.approx(waited)


def test_nobody_at_home(target):
    with pytest.raises(
        DataError, match=r"http://127\.0\.0\.1:9/set\.zip must.*Run the same command again"
    ):
        import_dataset("http://127.0.0.1:9/set.zip", target)


def test_letters_and_spaces_of_a_url_are_written_as_servers_want_them(server, target):
    import_dataset(server.url.replace("set.zip", "Größe (1) %C3%A4.zip?v=1&w=ß"), target)
    assert server.path == "/Gr%C3%B6%C3%9Fe%20(1)%20%C3%A4.zip?v=1&w=%C3%9F"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://[bad/x.zip", "'http://[bad/x.zip'"),
        ("https://host:port/x.zip?sig=secret", "'https://host:port/x.zip...'"),
        ("https://host:99999/x.zip", "'https://host:99999/x.zip'"),
        ("https:///x.zip", "'https:///x.zip'"),
        ("https://me:secret/@host/x.zip", "'https:...'"),
        ("https://host:port/x.zip?to=me@host&sig=secret", "'https:...'"),
    ],
)
def test_a_malformed_url_is_refused_without_its_secrets(target, url, shown):
    with pytest.raises(ConfigError, match="a URL must be like") as error:
        import_dataset(url, target)
    assert f"but got {shown}." in str(error.value)


def test_a_wrong_checksum_is_refused_and_the_download_dropped(server, target):
    with pytest.raises(DataError, match=f"must have the SHA-256 {'0' * 64}, but it has"):
        import_dataset(server.url, target, checksum="sha256:" + "0" * 64)
    assert_nothing_left(target)


def test_an_existing_target_is_refused(archive, target):
    target.mkdir(parents=True)
    with pytest.raises(DataError, match="must not exist"):
        import_dataset(str(archive), target)


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:/evil", "\\\\host\\share\\evil"]
)
def test_entries_that_lead_out_are_refused(tmp_path, target, name):
    path = make_zip(tmp_path / "a.zip", {"ok": b"1", name: b"2"})
    with pytest.raises(DataError, match="leads out of it"):
        import_dataset(str(path), target)
    assert_nothing_left(target)
    assert not list(tmp_path.rglob("*evil*"))


def test_a_nameless_entry_is_refused(tmp_path, target):
    path = make_zip(tmp_path / "a.zip", {"@@": b"1"})
    path.write_bytes(path.read_bytes().replace(b"@@", b"\0@"))
    with pytest.raises(DataError, match="the entry '' leads"):
        import_dataset(str(path), target)
    assert_nothing_left(target)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize(
    "names",
    [("a", "a"), ("d/a", "d//a"), ("d/a", "./d/./a"), ("d", "d/a"), ("d/a", "d"), ("d/", "d")],
)
def test_repeated_names_are_refused(tmp_path, target, names):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, b"")
    with pytest.raises(DataError, match=r"a\.zip must hold each name once, but '[ad/]+' stands"):
        import_dataset(str(path), target)
    assert_nothing_left(target)


def test_folders_may_have_entries_of_their_own(tmp_path, target):
    path = make_zip(tmp_path / "a.zip", {"d/": b"", "d/e/": b"", "d/a": b"1", "b": b"2"})
    import_dataset(str(path), target)
    assert content(target) == {"d/a": b"1", "b": b"2"}
    assert (target / "d/e").is_dir()


@pytest.mark.parametrize("kind", [0o120777, 0o010644, 0o060644])
def test_links_and_devices_are_refused(tmp_path, target, kind):
    entry = zipfile.ZipInfo("link")
    entry.external_attr = kind << 16
    path = make_zip(tmp_path / "a.zip", {entry: b"/etc/passwd"})
    with pytest.raises(DataError, match="a link or a device"):
        import_dataset(str(path), target)
    assert_nothing_left(target)


def test_bombs_are_refused_before_they_are_unpacked(tmp_path, target):
    path = make_zip(tmp_path / "a.zip", {"zeros": bytes(archives.SMALL + 1)})
    with pytest.raises(DataError, match="200 times its size"):
        import_dataset(str(path), target)
    assert_nothing_left(target)


def test_an_entry_cannot_unpack_to_more_than_it_declares(tmp_path, target):
    path = make_zip(tmp_path / "a.zip", {"zeros": bytes(100_000)})
    raw = path.read_bytes().replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    path.write_bytes(raw)
    with pytest.raises(DataError, match="whole zip file"):
        import_dataset(str(path), target)
    assert_nothing_left(target)


@pytest.mark.parametrize("spoil", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"x" * 99])
def test_a_damaged_zip_is_named(archive, target, spoil):
    archive.write_bytes(spoil(archive.read_bytes()))
    with pytest.raises(DataError, match=r"set\.zip must be a whole zip file"):
        import_dataset(str(archive), target)
    assert_nothing_left(target)


def test_a_flipped_byte_is_found_and_nothing_stays(archive, target):
    raw = bytearray(archive.read_bytes())
    raw[300_000] ^= 255
    archive.write_bytes(raw)
    with pytest.raises(DataError, match="whole zip file"):
        import_dataset(str(archive), target)
    assert_nothing_left(target)


@pytest.mark.parametrize(
    "method",
    [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA],
)
def test_damage_is_found_whatever_packed_the_entry(tmp_path, target, method):
    path = make_zip(tmp_path / "a.zip", {"a": bytes(range(256)) * 40}, method)
    raw = bytearray(path.read_bytes())
    for place in range(40, 72):  # behind all headers
        raw[place] ^= 255
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.zip must be a whole zip file, but: \w.*pack it again"):
        import_dataset(str(path), target)
    assert_nothing_left(target)


def test_a_damaged_download_is_called_by_its_url(server, target):
    server.body = b"x" * 99
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:\d+/set\.zip must be a whole zip"):
        import_dataset(server.url, target)
    assert_nothing_left(target)


def test_an_empty_zip_is_refused(tmp_path, target):
    with pytest.raises(DataError, match="it is empty"):
        import_dataset(str(make_zip(tmp_path / "a.zip", {})), target)
    assert_nothing_left(target)


def test_a_full_disk_leaves_nothing(archive, target, monkeypatch):
    path_open = Path.open

    def full(self, mode="r", *args, **options):
        file = path_open(self, mode, *args, **options)
        if mode == "xb":
            file.close()
            raise OSError(errno.ENOSPC, "No space left on device")
        return file

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(StoreError, match="No space left on device"):
        import_dataset(str(archive), target)
    assert_nothing_left(target)


def test_too_little_room_is_said_beforehand(archive, target, monkeypatch):
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(StoreError, match="the disk must have room"):
        import_dataset(str(archive), target)
    assert_nothing_left(target)


@pytest.mark.parametrize(
    ("source", "message"),
    [("/no/such", "none of them"), ("ftp://host/a.zip", "file, http or https, but got 'ftp'")],
)
def test_other_sources_are_refused(target, source, message):
    with pytest.raises(ConfigError, match=message):
        import_dataset(source, target)


def test_a_target_within_its_source_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="outside the source"):
        import_dataset(str(tmp_path), tmp_path / "inner")


@pytest.mark.parametrize("checksum", ["abc", "g" * 64, "md5:" + "0" * 32])
def test_a_checksum_that_is_none_is_refused(archive, target, checksum):
    with pytest.raises(ConfigError, match="64 hex digits"):
        import_dataset(str(archive), target, checksum=checksum)


def test_two_imports_at_once_do_not_mix(server, target):
    from filelock import FileLock

    target.parent.mkdir(parents=True)
    with FileLock(target.with_name(".cells.lock")), pytest.raises(StoreError, match="another is"):
        import_dataset(server.url, target)


def test_secrets_are_not_shown():
    assert shown_source("https://me:pw@host:80/a.zip?sig=1") == "https://host:80/a.zip"
    assert shown_source("https://me:pw@[::1]:80/a.zip") == "https://[::1]:80/a.zip"
    assert shown_source("/data/a.zip") == "/data/a.zip"
