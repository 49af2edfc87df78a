"""Names, removal and gc: what is used or being written stays, what was asked for goes."""

import hashlib
import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pear_cli.errors import CorruptArtifact, MissingArtifact, StoreError
from pear_cli.store.artifact import Artifact
from pear_cli.store.gc import collect
from pear_cli.store.removal import remove
from pear_cli.store.store import Store

DAY = 24 * 3600.0


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def put(store: Store, stage: str, key: str, **inputs: Artifact) -> Artifact:
    with store.draft(stage, key) as draft:
        draft.save_json("numbers", list(range(100)))
        keys = {name: artifact.key for name, artifact in inputs.items()}
        return draft.publish(inputs=keys, config={}, metrics={}, accounting={}, seconds=0, environment={})


def backdate(artifact: Artifact, days: float) -> None:
    created = datetime.now(UTC) - timedelta(days=days)
    content = json.dumps(artifact.manifest | {"created_at": created.isoformat()}).encode()
    (artifact.path / "manifest.json").write_bytes(content)
    (artifact.path / "manifest.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  manifest.json\n")


@pytest.fixture
def chain(store: Store) -> list[Artifact]:
    """Return dense <- score <- share, each made from the one before; share reads dense too."""
    dense = put(store, "train", "a" * 32)
    score = put(store, "score", "b" * 32, dense=dense)
    share = put(store, "prune-share", "c" * 32, score=score, dense=dense)
    return [dense, score, share]


def test_a_key_a_prefix_a_stage_with_a_prefix_and_a_path_mean_the_same(
    store: Store, chain: list[Artifact]
) -> None:
    dense = chain[0]
    for text in (
        "a" * 32,
        "aaaa",
        "train/aaaa",
        str(dense.path),
        f"{dense.path}/",
        os.path.relpath(dense.path),
    ):
        assert store.resolve(text).path.samefile(dense.path)


def test_a_prefix_that_several_artifacts_share_lists_them(store: Store) -> None:
    put(store, "train", "abcd1" + "0" * 27)
    put(store, "score", "abcd2" + "0" * 27)
    with pytest.raises(
        StoreError, match=r"can mean 2 artifacts: score/abcd20+, train/abcd10+; give more digits"
    ):
        store.resolve("abcd")
    assert store.resolve("score/abcd").stage == "score"
    assert store.resolve("abcd1").stage == "train"


def test_a_short_a_wrong_and_a_misspelt_name_say_what_to_do(store: Store, chain: list[Artifact]) -> None:
    with pytest.raises(StoreError, match="too short"):
        store.resolve("aaa")
    with pytest.raises(MissingArtifact, match="pear ls"):
        store.resolve("0123")
    with pytest.raises(MissingArtifact, match=f'did you mean "{"a" * 32}"'):
        store.resolve("a" * 31 + "0")
    with pytest.raises(MissingArtifact, match=r"manifest\.json"):
        store.resolve(str(store.root))


def test_an_artifact_outside_the_store_is_resolved_but_not_removed(store: Store, tmp_path: Path) -> None:
    elsewhere = put(Store(tmp_path / "other"), "train", "d" * 32)
    put(store, "train", "a" * 32)
    assert store.resolve(str(elsewhere.path)) == elsewhere
    with pytest.raises(StoreError, match="not in the store"):
        remove(store, elsewhere.path)
    elsewhere.verify()


def test_an_input_of_other_artifacts_is_not_removed_and_they_are_named(
    store: Store, chain: list[Artifact]
) -> None:
    with pytest.raises(StoreError, match=r"is an input of score/b+, prune-share/c+; .*--recursive"):
        remove(store, chain[0].path)
    assert len(list(store.artifacts())) == 3


def test_recursive_removal_takes_the_users_first(store: Store, chain: list[Artifact]) -> None:
    put(store, "train", "d" * 32)
    assert remove(store, chain[0].path, recursive=True) == [chain[2].path, chain[1].path, chain[0].path]
    assert [artifact.key for artifact in store.artifacts()] == ["d" * 32]
    with pytest.raises(MissingArtifact):
        remove(store, chain[0].path)


def test_a_damaged_artifact_can_be_named_and_removed(store: Store, chain: list[Artifact]) -> None:
    (chain[2].path / "manifest.json").write_text("{")
    with pytest.raises(CorruptArtifact):
        store.resolve("cccc")
    assert remove(store, store.locate("cccc")) == [chain[2].path]
    assert store.find("prune-share", "c" * 32) is None


def test_an_artifact_that_a_process_works_on_is_not_removed(store: Store, chain: list[Artifact]) -> None:
    with Store(store.root).lock("prune-share", "c" * 32), pytest.raises(StoreError, match="another process"):
        remove(store, chain[2].path)
    chain[2].verify()


def of_a_newer_pear(artifact: Artifact) -> None:
    """Make its manifest one that can be searched for keys, but no longer understood."""
    content = {"schema": 99, "key": artifact.key, "made_of": list(artifact.inputs.values())}
    (artifact.path / "manifest.json").write_text(json.dumps(content))


def test_an_artifact_of_a_newer_pear_is_reported_and_stays_while_others_go(
    store: Store, chain: list[Artifact]
) -> None:
    of_a_newer_pear(chain[1])
    (put(store, "eval", "d" * 32).path / "numbers.json").write_text("[]")
    told = dict[Path, StoreError]()
    report = collect(store, older_than=0, verify=True, on_error=told.__setitem__)
    assert [(item.kind, item.path.name[0]) for item in report.items] == [("corrupt", "d"), ("old", "c")]
    assert [path for path in (chain[0].path, chain[1].path) if not path.exists()] == []
    assert list(told) == [chain[1].path]
    assert "schema 99" in str(told[chain[1].path])


def test_what_an_artifact_of_a_newer_pear_was_made_from_is_removed_after_it_only(
    store: Store, chain: list[Artifact]
) -> None:
    lonely = put(store, "train", "d" * 32)
    of_a_newer_pear(chain[1])
    told = list[Path]()
    for gone in (lonely, chain[2]):
        assert remove(store, gone.path, on_error=lambda path, error: told.append(path)) == [gone.path]
    assert told == [chain[1].path] * 2
    with pytest.raises(StoreError, match=r"an input of score/b+, made by a newer pear"):
        remove(store, chain[0].path, recursive=True)
    assert remove(store, store.locate("bbbb")) == [chain[1].path]
    assert remove(store, chain[0].path) == [chain[0].path]


def test_gc_without_requests_keeps_every_artifact_and_what_is_being_written(
    store: Store, chain: list[Artifact]
) -> None:
    other = Store(store.root)
    with (
        other.lock("train", "d" * 32),
        other.draft("train", "d" * 32) as draft,
        store.draft("eval", "e" * 32) as free,
    ):
        other.workspace("train", "d" * 32)
        report = collect(store)
        assert {item.kind for item in report.items} == set()
        assert draft.path.exists()
        assert free.path.exists()
        assert other.lock_path("train", "d" * 32).exists()
    assert list(store.artifacts()) == sorted(chain, key=lambda artifact: (artifact.stage, artifact.key))


def leave_rubbish(store: Store) -> dict[str, Path]:
    """Leave what killed processes leave; return it by kind."""
    drafts = store.root / "train" / f".tmp-{'d' * 32}-1-0"
    work = store.workspace("train", "a" * 32)
    quarantined = store.root / ".quarantine" / f"train-{'d' * 32}-0"
    for folder in (drafts, work, quarantined):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "file").write_bytes(bytes(1000))
    lock = store.lock_path("train", "a" * 32)
    lock.parent.mkdir(exist_ok=True)
    lock.touch()
    return {"draft": drafts, "work": work, "quarantined": quarantined, "lock": lock}


def test_a_dry_run_reports_what_the_real_one_removes_and_touches_nothing(
    store: Store, chain: list[Artifact]
) -> None:
    rubbish = leave_rubbish(store)
    before = sorted(store.root.rglob("*"))
    planned = collect(store, dry_run=True)
    assert sorted(store.root.rglob("*")) == before
    done = collect(store)
    assert (planned.dry_run, done.dry_run) == (True, False)
    assert planned.items == done.items
    assert {item.kind: item.path for item in done.items} == rubbish
    assert done.size == 3000
    assert not any(path.exists() for path in rubbish.values())
    assert len(list(store.artifacts())) == 3


def test_a_dry_run_takes_no_lock_because_a_read_only_store_has_no_room_for_it(
    store: Store, chain: list[Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_rubbish(store)
    (chain[2].path / "numbers.json").write_text("[]")
    with Store(store.root).lock("train", "d" * 32):  # whose draft is not rubbish then
        monkeypatch.setattr("pear_cli.store.store.FileLock", None)
        report = collect(store, dry_run=True, verify=True)
    assert [item.kind for item in report.items] == ["work", "quarantined", "corrupt", "lock"]


def test_progress_of_an_unfinished_run_stays_until_it_is_older_than_asked(store: Store) -> None:
    work = store.workspace("train", "d" * 32)
    (work / "epoch").touch()
    collect(store)
    collect(store, older_than=60)
    assert work.exists()
    for path in (work / "epoch", work):
        os.utime(path, (time.time() - 120,) * 2)
    assert [item.kind for item in collect(store, older_than=60).items] == ["work"]
    assert not work.exists()


def test_a_draft_made_without_the_lock_goes_when_it_is_a_day_old(store: Store) -> None:
    draft = store.root / "train" / f".tmp-{'d' * 32}-1-0-free"
    draft.mkdir(parents=True)
    assert collect(store).items == ()
    os.utime(draft, (time.time() - 2 * DAY,) * 2)
    assert [item.path for item in collect(store).items] == [draft]


def test_old_artifacts_go_unless_a_younger_one_was_made_from_them(
    store: Store, chain: list[Artifact]
) -> None:
    lonely = put(store, "train", "d" * 32)
    for artifact in (chain[0], chain[1], lonely):
        backdate(artifact, days=10)
    assert [item.path for item in collect(store, older_than=5 * DAY).items] == [lonely.path]
    backdate(chain[2], days=10)
    report = collect(store, older_than=5 * DAY)
    assert [item.path for item in report.items] == [chain[2].path, chain[1].path, chain[0].path]
    assert list(store.artifacts()) == []


def test_inputs_of_an_artifact_that_a_process_works_on_stay(store: Store, chain: list[Artifact]) -> None:
    for artifact in chain:
        backdate(artifact, days=10)
    with Store(store.root).lock("prune-share", "c" * 32):
        assert collect(store, older_than=5 * DAY).items == ()
    assert len(list(store.artifacts())) == 3


def test_orphans_and_all_made_from_them_go_on_request_only(store: Store, chain: list[Artifact]) -> None:
    kept = put(store, "train", "d" * 32)
    for path in chain[0].path.iterdir():
        path.unlink()
    chain[0].path.rmdir()
    assert collect(store).items == ()
    assert {item.path for item in collect(store, orphans=True).items} == {chain[1].path, chain[2].path}
    assert list(store.artifacts()) == [kept]


def test_verifying_moves_damaged_artifacts_aside_and_spares_what_was_made_from_them(
    store: Store, chain: list[Artifact]
) -> None:
    (chain[0].path / "numbers.json").write_text("[]")
    (chain[2].path / "manifest.json").write_text("[]")
    planned = collect(store, verify=True, orphans=True, dry_run=True)
    assert len(list(store.artifacts())) == 2
    report = collect(store, verify=True, orphans=True)
    assert report.items == planned.items
    assert {item.path: item.kind for item in report.items} == {
        chain[0].path: "corrupt",
        chain[2].path: "corrupt",
    }
    assert list(store.artifacts()) == [chain[1]]
    assert len(list((store.root / ".quarantine").iterdir())) == 2


def test_artifacts_that_name_each_other_as_inputs_are_an_error_not_a_loop(store: Store) -> None:
    one = put(store, "train", "a" * 32)
    two = put(store, "train", "b" * 32, one=one)
    one.manifest["inputs"]["two"] = two.key
    backdate(one, days=0)
    with pytest.raises(StoreError, match="name each other"):
        collect(store, orphans=True)


def test_gc_of_a_store_that_does_not_exist_finds_nothing_and_makes_nothing(store: Store) -> None:
    assert collect(store, verify=True, orphans=True, older_than=0).items == ()
    assert not store.root.exists()


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.lists(st.integers(0, 5), max_size=2), st.booleans()), max_size=6))
def test_gc_never_removes_an_artifact_that_a_kept_one_was_made_from(
    tmp_path_factory: pytest.TempPathFactory, nodes: list[tuple[list[int], bool]]
) -> None:
    store, made = Store(tmp_path_factory.mktemp("store")), list[Artifact]()
    for number, (parents, old) in enumerate(nodes):
        inputs = {f"input{parent}": made[parent] for parent in parents if parent < number}
        made.append(put(store, "train", f"{number:032x}", **inputs))
        if old:
            backdate(made[-1], days=10)
    collect(store, older_than=5 * DAY)
    left = {artifact.key: artifact for artifact in store.artifacts()}
    assert {artifact.key for artifact, (_, old) in zip(made, nodes, strict=True) if not old} <= left.keys()
    assert all(key in left for artifact in left.values() for key in artifact.inputs.values())
    used = {key for artifact in left.values() for key in artifact.inputs.values()}
    assert all(key in used or not nodes[int(key, 16)][1] for key in left)


@pytest.mark.parametrize("age", [-1.0, float("nan"), float("inf"), -float("inf")])
def test_an_age_that_is_negative_or_not_finite_removes_nothing(store: Store, age: float) -> None:
    made = put(store, "eval", "a" * 32)
    with pytest.raises(StoreError, match="is out of range"):
        collect(store, older_than=age)
    assert made.path.exists()
