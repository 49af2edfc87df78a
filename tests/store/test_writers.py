"""Writers that race, wait, fail or are killed: an artifact is whole or not at all."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from pear_cli.errors import StoreError
from pear_cli.store.artifact import Artifact
from pear_cli.store.draft import Draft
from pear_cli.store.store import Store

KEY = "0123456789abcdef" * 2


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def publish(draft: Draft, value: float = 1.0) -> Artifact:
    draft.save_tensors("adapters", {"up": torch.full((2, 3), value)})
    draft.save_json("history", {"loss": [0.5, 0.25]})
    return draft.publish(
        inputs={}, config={}, metrics={"accuracy": 0.9}, accounting={}, seconds=1, environment={}
    )


def put(store: Store, key: str = KEY) -> Artifact:
    with store.draft("train", key) as draft:
        return publish(draft)


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    header = "import os, sys, time\nfrom pathlib import Path\nfrom pear_cli.store.store import Store\n"
    command = [sys.executable, "-c", header + code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def killed_draft(store: Store) -> Path:
    """Return the folder of a draft whose writer was killed while it held the lock."""
    code = (
        "store = Store(Path(sys.argv[1])); key = sys.argv[2]\n"
        "with store.lock('train', key), store.draft('train', key) as draft:\n"
        "    store.workspace('train', key).joinpath('epoch').write_text('3')\n"
        "    draft.save_json('history', [1])\n"
        "    print(draft.path, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with python(code, store.root, KEY) as process:
        path = Path(wait_for_line(process))
        process.send_signal(signal.SIGKILL)
    return path


@pytest.mark.parametrize("problem", [ValueError, KeyboardInterrupt])
def test_a_draft_that_fails_or_is_interrupted_leaves_nothing(
    store: Store, problem: type[BaseException]
) -> None:
    def interrupted() -> None:
        with store.lock("train", KEY), store.draft("train", KEY) as draft:
            draft.save_json("history", {})
            raise problem

    with pytest.raises(problem):
        interrupted()
    assert list((store.root / "train").iterdir()) == []
    with Store(store.root).lock("train", KEY, wait=0):
        pass


def test_a_second_draft_of_a_key_is_dropped_and_the_first_is_returned(store: Store) -> None:
    with store.draft("train", KEY) as late:
        first = put(store)
        second = publish(late, value=2.0)
    assert second == first
    assert second.manifest == first.manifest
    assert second.tensors("adapters")["up"].max() == 1.0
    assert [path.name for path in (store.root / "train").iterdir()] == [KEY]


def test_a_damaged_artifact_in_the_way_goes_to_quarantine(store: Store) -> None:
    first = put(store)
    (first.path / "history.json").write_text("{}")
    with store.draft("train", KEY) as draft:
        publish(draft, value=2.0).verify()
    assert store.get("train", KEY).tensors("adapters")["up"].max() == 2.0
    (aside,) = (store.root / ".quarantine").iterdir()
    assert aside.name.startswith(f"train-{KEY}-")


def test_processes_that_publish_one_key_at_once_all_get_a_sound_artifact(store: Store) -> None:
    code = (
        "store = Store(Path(sys.argv[1]))\n"
        "drafts = [(f'{i:032x}', store.draft('train', f'{i:032x}')) for i in range(20)]\n"
        "opened = [(key, context, context.__enter__()) for key, context in drafts]\n"
        "for _, _, draft in opened:\n"
        "    draft.save_json('writer', int(sys.argv[2]))\n"
        "print('ready', flush=True)\n"
        "while time.time() < float(sys.stdin.readline() or 0): pass\n"
        "for key, context, draft in opened:\n"
        "    draft.publish(inputs={}, config={}, metrics={}, accounting={}, seconds=0).verify()\n"
        "    context.__exit__(None, None, None)\n"
    )
    writers = [python(code, store.root, number) for number in range(2)]
    for writer in writers:
        assert wait_for_line(writer) == "ready"
    start = time.time() + 0.05
    for writer in writers:
        writer.communicate(f"{start}\n")
    assert [writer.returncode for writer in writers] == [0, 0]
    artifacts = list(store.artifacts())
    assert len(artifacts) == 20
    for artifact in artifacts:
        artifact.verify()
        assert artifact.json("writer") in (0, 1)
    assert len(list((store.root / "train").iterdir())) == 20
    assert not (store.root / ".quarantine").exists()


def test_a_killed_writer_leaves_no_artifact_and_the_next_one_cleans_up_and_finds_its_progress(
    store: Store, killed_draft: Path
) -> None:
    assert killed_draft.is_dir()
    assert store.find("train", KEY) is None
    assert list(store.artifacts()) == []
    with store.lock("train", KEY, wait=5):
        assert store.workspace("train", KEY).joinpath("epoch").read_text() == "3"
        with store.draft("train", KEY) as draft:
            assert not killed_draft.exists()
            publish(draft)
    assert [path.name for path in (store.root / "train").iterdir()] == [KEY]


def test_a_draft_without_the_lock_leaves_the_drafts_of_others_alone(store: Store) -> None:
    with store.draft("train", KEY) as other:
        with store.draft("train", KEY):
            assert other.path.exists()
        with store.lock("train", KEY), store.draft("train", KEY):
            assert other.path.exists()


def test_waiting_for_a_lock_is_announced_and_ends_when_the_holder_is_done(store: Store) -> None:
    holder, told, order = Store(store.root), list[str](), list[str]()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with holder.lock("train", KEY):
            held.set()
            done.wait(5)
            order.append("holder")

    def on_wait(message: str) -> None:
        told.append(message)
        done.set()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(5)
    with pytest.raises(StoreError, match="another process is working on train/"):
        store.lock("train", KEY, wait=0).__enter__()
    with store.lock("train", KEY, on_wait=on_wait):
        order.append("waiter")
    thread.join()
    assert order == ["holder", "waiter"]
    assert len(told) == 1
    assert KEY in told[0]


def test_the_lock_may_be_taken_again_by_the_store_that_has_it(store: Store) -> None:
    with store.lock("train", KEY):
        with store.lock("train", KEY, wait=0):
            pass
        assert Store(store.root).is_busy("train", KEY)
    assert not Store(store.root).is_busy("train", KEY)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.EROFS, "set runtime.store to a folder that you may write to"),
        (errno.EACCES, "set runtime.store to a folder that you may write to"),
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EIO, "check the disk"),
    ],
)
@pytest.mark.parametrize(
    ("owner", "call"),
    [(os, "mkdir"), (Path, "write_bytes"), (os, "fsync"), (os, "rename"), (Path, "iterdir")],
)
def test_a_disk_that_refuses_is_an_error_with_a_remedy_and_publishes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, owner: object, call: str, code: int, remedy: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(owner, call, refuse)
        with pytest.raises(StoreError) as caught:
            put(store)
    assert remedy in str(caught.value)
    assert str(store.root) in str(caught.value)
    assert list(store.artifacts()) == []
    assert list(store.root.glob("train/*")) == []


def test_a_read_only_store_can_be_read_but_not_locked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store)
    opened = os.open

    def read_only(path: str, flags: int, *rest: int, **more: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return opened(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", read_only)
    artifact = store.get("train", KEY)
    artifact.verify()
    assert artifact.tensors("adapters")["up"].sum() == 6
    assert list(store.artifacts()) == [artifact]
    assert store.resolve(KEY[:6]) == artifact
    with pytest.raises(StoreError, match=r"Read-only file system.*runtime\.store"):
        store.lock("train", KEY).__enter__()


def test_a_lock_file_that_gc_unlinks_under_a_waiter_still_excludes_others(store: Store) -> None:
    locked, done = threading.Event(), threading.Event()

    def wait() -> None:
        with Store(store.root).lock("train", KEY, on_wait=lambda message: locked.set()):
            done.wait(5)

    with store.claim("train", KEY) as ours:
        assert ours
        waiter = threading.Thread(target=wait)
        waiter.start()
        locked.wait(5)
        time.sleep(0.1)
        store.lock_path("train", KEY).unlink()
    deadline = time.monotonic() + 5
    while not store.is_busy("train", KEY) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert store.is_busy("train", KEY)
    done.set()
    waiter.join()
