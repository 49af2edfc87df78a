"""A store that several jobs, or several users, have at the same time."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pear_cli.errors import StoreError
from pear_cli.store.gc import collect
from pear_cli.store.lease import is_leased, leased
from pear_cli.store.removal import remove
from pear_cli.store.store import Store

A, B = "a" * 32, "b" * 32


def put(store: Store, stage: str, key: str, **inputs: str):
    with store.lock(stage, key), store.draft(stage, key) as draft:
        draft.save_json("numbers", [1])
        return draft.publish(inputs=inputs, config={}, metrics={}, accounting={}, seconds=0)


def test_what_a_running_job_needs_is_left_by_gc_and_rm(tmp_path):
    store = Store(tmp_path)
    made, other = put(store, "train", A), put(store, "train", B)
    with leased(store, [("train", A), ("score", B)]):
        with pytest.raises(StoreError, match="a running job needs"):
            remove(store, made.path)
        planned = collect(store, older_than=0, dry_run=True)
        done = collect(store, older_than=0)
        for report in (planned, done):
            assert [item.path for item in report.items if item.is_complete] == [other.path]
        assert made.path.exists()
    assert not is_leased(store, "train", A)
    assert remove(store, made.path) == [made.path]
    assert not [path for path in (tmp_path / ".locks").iterdir() if collect(store) and path.exists()]


def test_a_lease_ends_with_its_process(tmp_path):
    store = Store(tmp_path)
    made = put(store, "train", A)
    script = f"""
from pathlib import Path
from pear_cli.store.lease import leased
from pear_cli.store.store import Store
with leased(Store(Path({str(tmp_path)!r})), [("train", {A!r})]):
    print("has it", flush=True)
    input()
"""
    job = subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, text=True)
    assert job.stdout.readline() == "has it\n"
    assert is_leased(store, "train", A)
    job.kill()
    job.communicate()
    assert remove(store, made.path) == [made.path]


def test_a_store_that_cannot_be_written_needs_no_lease(tmp_path):
    (tmp_path / "file").write_text("")
    with leased(Store(tmp_path / "file"), [("train", A)]):
        pass


def test_where_the_group_may_write_it_may_write_all_that_is_made(tmp_path):
    tmp_path.chmod(0o2770)
    before = os.umask(0o022)
    try:
        store = Store(tmp_path)
        put(store, "train", A)
        store.workspace("train", B)
    finally:
        os.umask(before)
    for path in tmp_path.rglob("*"):
        mode = path.stat().st_mode
        assert mode & stat.S_IWGRP, path
        assert not path.is_dir() or mode & stat.S_ISGID, path


def test_where_the_group_may_not_write_nothing_is_opened_to_it(tmp_path):
    tmp_path.chmod(0o755)
    put(Store(tmp_path), "train", A)
    assert not [path for path in tmp_path.rglob("*") if path.stat().st_mode & stat.S_IWGRP]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become two users")
def test_of_two_users_of_a_store_each_removes_what_the_other_made(tmp_path):
    group, users = 54321, (54322, 54323)
    root = tmp_path / "store"
    root.mkdir()
    os.chown(root, users[0], group)
    root.chmod(0o2770)
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/") and folder.stat().st_uid == os.geteuid():
            folder.chmod(folder.stat().st_mode | 0o055)
    first, second = users
    as_user(first, group, lambda: put(Store(root), "train", A))
    as_user(second, group, lambda: put(Store(root), "score", B, train=A))
    as_user(first, group, lambda: remove(Store(root), root / "score" / B))
    as_user(second, group, lambda: collect(Store(root), older_than=0))
    assert not list(Store(root).folders())
    assert not [path for path in root.rglob("*") if path.is_file()]


def as_user(user: int, group: int, work) -> None:
    """Do something in a process of another user."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(group)
            os.setuid(user)
            os.umask(0o022)
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
