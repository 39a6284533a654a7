import os

import pytest

from hemaml.core.errors import StoreError
from hemaml.data.digests import FileDigests, file_stamp

OLD = (1, 10**18, 10**18)


def test_a_digest_is_computed_once_for_all_processes(cache_folder, tmp_path):
    calls = []
    for _ in range(3):
        digests = FileDigests(cache_folder, tmp_path)
        assert digests.digest("a", OLD, lambda: calls.append(1) or "d") == "d"
        digests.save()
    assert len(calls) == 1


@pytest.mark.parametrize("place", range(3))
def test_a_change_of_size_or_times_computes_again(cache_folder, tmp_path, place):
    digests = FileDigests(cache_folder, tmp_path)
    digests.digest("a", OLD, lambda: "old")
    changed = tuple(n + (i == place) for i, n in enumerate(OLD))
    assert digests.digest("a", changed, lambda: "new") == "new"


def test_a_file_of_this_moment_is_not_remembered(cache_folder, tmp_path):
    (tmp_path / "f").write_text("1")
    digests = FileDigests(cache_folder, tmp_path)
    stamp = file_stamp(tmp_path / "f")
    assert digests.digest("f", stamp, lambda: "1") == "1"
    assert digests.digest("f", stamp, lambda: "2") == "2"


def test_equal_size_and_copied_time_are_told_apart(tmp_path):
    path = tmp_path / "f"
    path.write_text("1")
    os.utime(path, ns=(10**18, 10**18))
    before = file_stamp(path)
    (tmp_path / "g").write_text("2")
    os.utime(tmp_path / "g", ns=(10**18, 10**18))
    (tmp_path / "g").replace(path)
    assert file_stamp(path) != before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_damaged_index_counts_as_none(cache_folder, tmp_path, content):
    digests = FileDigests(cache_folder, tmp_path)
    digests.digest("a", OLD, lambda: "d")
    digests.save()
    (index,) = (cache_folder / "digests").iterdir()
    index.write_bytes(content)
    assert FileDigests(cache_folder, tmp_path).digest("a", OLD, lambda: "again") == "again"


def test_data_sets_do_not_share_an_index(cache_folder, tmp_path):
    for name in ("one", "two"):
        digests = FileDigests(cache_folder, tmp_path / name)
        assert digests.digest("a", OLD, lambda name=name: name) == name
        digests.save()


def test_an_unwritable_cache_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    digests = FileDigests(tmp_path / "file", tmp_path)
    digests.digest("a", OLD, lambda: "d")
    with pytest.raises(StoreError, match="HEMAML_CACHE"):
        digests.save()
