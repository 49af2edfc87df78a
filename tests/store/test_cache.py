"""The cache helps, and never hinders."""

import hashlib
import json
import os

import pytest

from pear_cli.errors import DataError
from pear_cli.store import cache


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PEAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "SETTLED_NS", 0)


@pytest.fixture
def files(tmp_path):
    root = tmp_path / "files"
    root.mkdir()
    for name in ("a", "b"):
        (root / name).write_bytes(name.encode())
        os.utime(root / name, (1, 1))
    return root


EXPECTED = [(1, hashlib.sha256(name).hexdigest()) for name in (b"a", b"b")]


def test_a_file_that_did_not_change_is_not_read_again(files, monkeypatch):
    assert cache.content_hashes(files, ["a", "b"]) == EXPECTED
    monkeypatch.setattr(cache, "sha256", lambda path: "read again")
    assert cache.content_hashes(files, ["b", "a"]) == EXPECTED[::-1]
    os.utime(files / "a", (2, 2))
    assert cache.content_hashes(files, ["a", "b"]) == [(1, "read again"), EXPECTED[1]]


def test_a_file_changed_just_now_is_not_remembered(files, monkeypatch):
    cache.content_hashes(files, ["b"])
    monkeypatch.setattr(cache, "SETTLED_NS", 10**12)
    cache.content_hashes(files, ["a", "b"])
    (place,) = cache.folder().rglob("*.json")
    assert list(json.loads(place.read_bytes())) == ["b"]


def test_a_file_altered_in_place_is_read_again_though_its_size_and_time_are_those_of_before(files):
    cache.content_hashes(files, ["a", "b"])
    before = os.stat(files / "a")
    with (files / "a").open("r+b") as file:
        file.write(b"c")
    os.utime(files / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    now = cache.identity(os.stat(files / "a"))
    assert [n == b for n, b in zip(now, cache.identity(before), strict=True)] == [True, True, False, True]
    assert cache.content_hashes(files, ["a"]) == [(1, hashlib.sha256(b"c").hexdigest())]


def test_no_bit_that_flips_in_what_is_remembered_changes_a_hash_or_a_fact(files):
    cache.content_hashes(files, ["a", "b"])
    cache.remember("key", {"signature": "x", "classes": ["ant", "bee"], "count": 12})
    facts = cache.recall("key")
    for place in cache.folder().rglob("*.json"):
        whole = place.read_bytes()
        for bit in range(0, 8 * len(whole), 3):
            altered = bytearray(whole)
            altered[bit // 8] ^= 1 << bit % 8
            place.write_bytes(altered)
            assert cache.content_hashes(files, ["a", "b"]) == EXPECTED
            assert cache.recall("key") in ({}, facts)
        place.write_bytes(whole)


def test_what_is_remembered_of_one_file_is_not_believed_of_another(files):
    cache.content_hashes(files, ["a", "b"])
    (place,) = cache.folder().rglob("*.json")
    known = json.loads(place.read_bytes())
    known["b"] = [*known["b"][:-2], *known["a"][-2:]]
    place.write_text(json.dumps(known))
    assert cache.content_hashes(files, ["a", "b"]) == EXPECTED


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"a": 1}', b'{"a": []}', b"\xff", b"[" * 100_000])
def test_a_broken_cache_is_as_good_as_none(files, content):
    cache.content_hashes(files, ["a", "b"])
    (place,) = cache.folder().rglob("*.json")
    place.write_bytes(content)
    assert cache.content_hashes(files, ["a", "b"]) == EXPECTED
    assert set(json.loads(place.read_bytes())) == {"a", "b"}


def test_a_cache_that_cannot_be_written_is_no_error(files, monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("PEAR_CACHE", str(tmp_path / "file" / "below"))
    assert cache.content_hashes(files, ["a", "b"]) == EXPECTED
    (tmp_path / "full").mkdir()
    monkeypatch.setenv("PEAR_CACHE", str(tmp_path / "full"))
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    assert cache.content_hashes(files, ["a", "b"]) == EXPECTED
    assert not [path for path in (tmp_path / "full").rglob("*") if path.is_file()]


def test_a_missing_file_is_named(files):
    with pytest.raises(DataError, match=r"file .*lost is missing$"):
        cache.content_hashes(files, ["a", "lost"])


def test_the_cache_lies_in_the_home_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("PEAR_CACHE")
    assert cache.folder().parts[-2:] == (".cache", "pear")


def test_files_that_are_missing_are_counted(files):
    with pytest.raises(DataError, match=r"lost is missing\nand 1 more; pear data verify names them all"):
        cache.content_hashes(files, ["a", "lost", "b", "gone"])
