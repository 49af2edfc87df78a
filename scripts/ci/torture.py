"""Kill, fill, forbid, flip: whatever happens to a store, what it holds is whole and right in the end.

    python scripts/ci/torture.py                          200 kills, 200 flipped bits: about 10 minutes
    python scripts/ci/torture.py --kills 10 --flips 20    what the tests run

A sweep of small jobs is run once in peace. Then it is run with four jobs at a time, whose processes get
SIGKILL or SIGTERM at random moments, live in clocks that are days apart and bear the process numbers of
another machine; on a full disk and on a read-only one (as root, who may mount them); and with bits flipped
in random files of finished artifacts. Every time the same commands are repeated until all is there, and then:

- every job ends in the key that it has in peace, and every file of every artifact has the same bytes;
- every artifact was published once, and computed again only where a kill or a fault had stopped it;
- every flipped bit is found when its file is read, and `pear gc --verify` sets the artifact aside.

Prints a line for what happened and a line of JSON as the summary; exit code 1 if anything was lost or wrong.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pear_cli.errors import CorruptArtifact
from pear_cli.store.artifact import Artifact
from pear_cli.store.store import Store

CONFIGS = Path(__file__).resolve().parent.parent.parent / "tests" / "configs"
FAST = [f"--config-dir={CONFIGS}", "backbone=tiny", "dataset=digits", "method.rank=2", "optim.epochs=6"]
SWEEP = [
    [*FAST, "optim.batch_size=100", "runtime.threads=1", f"prune.ratio={ratio}", f"seed={seed}"]
    for seed in (0, 1)
    for ratio in (0.25, 0.5, 0.75)
]
DAY = 86400


@dataclass
class Tally:
    """What was done to the store, and what came of it."""

    seed: int
    kills: int = 0
    flips: int = 0
    found: int = 0
    sweeps: int = 0
    published: int = 0
    resumed: int = 0
    faults: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=4, help="processes at a time")
    options = parser.parse_args()
    tally, chance = Tally(options.seed), random.Random(options.seed)
    warm()
    with tempfile.TemporaryDirectory(prefix="pear-torture-") as scratch:
        folder = Path(scratch)
        calm = folder / "calm"
        start = time.monotonic()
        run_all(calm, folder, jobs=1)
        usual = (time.monotonic() - start) / len(SWEEP)
        expected = contents(calm)
        say(f"in peace: {len(expected)} artifacts")
        while tally.kills < options.kills:
            store = folder / f"sweep{tally.sweeps}"
            before = tally.kills
            endure(store, folder, options, usual, chance, tally)
            compare(expected, store, tally, "kills")
            say(f"sweep {tally.sweeps}: {tally.kills - before} kills")
        for fault in (full_disk, read_only):
            fault(folder, expected, tally)
        flip(calm, folder, expected, options.flips, chance, tally)
    print(json.dumps(asdict(tally)))
    return 1 if tally.lost or tally.wrong else 0


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def warm() -> None:
    """Load once what every job needs: they are forked, so that a kill costs no start."""
    import timm  # noqa: F401
    import torch

    import pear_cli.stages.making  # noqa: F401

    torch.set_num_threads(1)


def fork(words: list[str], store: Path, log: Path, elsewhere: random.Random | None = None) -> int:
    """Start `pear run` in a process of its own; return its number."""
    child = os.fork()
    if child:
        return child
    try:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(log.parent)
        note_work(log.with_suffix(".work"))
        if elsewhere is not None:
            move_elsewhere(elsewhere)
        from pear_cli.cli.app import perform

        os._exit(perform(["run", *words, f"runtime.store={store}"]))
    finally:
        os._exit(70)


def note_work(path: Path) -> None:
    """Write a line when a stage begins to be computed, and one when it is published."""
    from pear_cli.store.draft import Draft
    from pear_cli.store.store import Store

    begin, publish = Store.draft, Draft.publish

    def note(word: str, name: str) -> None:
        line = f"{word} {name}\n".encode()
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, line)  # one write, appended whole
        os.close(file)

    def begun(self: Store, stage: str, key: str) -> object:
        note("began", f"{stage}/{key}")
        return begin(self, stage, key)

    def published(self: Draft, *args: object, **kwargs: object) -> Artifact:
        artifact = publish(self, *args, **kwargs)  # type: ignore[arg-type]
        note("published", f"{artifact.stage}/{artifact.key}")
        return artifact

    Store.draft, Draft.publish = begun, published  # type: ignore[assignment, method-assign]


def move_elsewhere(chance: random.Random) -> None:
    """Let this process look like one of another machine: a clock that jumps, a process number used twice."""
    import socket

    real, real_ns = time.time, time.time_ns
    offsets = [chance.uniform(-3, 3) * DAY for _ in range(8)]
    time.time = lambda: real() + offsets[int(10 * real()) % 8]
    time.time_ns = lambda: real_ns() + int(offsets[int(10 * real()) % 8] * 1e9)
    host, number = f"machine{chance.randrange(2)}", chance.randrange(2, 9)
    socket.gethostname = lambda: host
    os.getpid = lambda: number


def run_all(store: Path, folder: Path, jobs: int) -> list[int]:
    """Run the sweep undisturbed; the exit codes of its jobs."""
    waiting, running, codes = list(SWEEP), [], []
    while waiting or running:
        while waiting and len(running) < jobs:
            running.append(fork(waiting.pop(0), store, folder / "log"))
        child, status = os.wait()
        running.remove(child)
        codes.append(os.waitstatus_to_exitcode(status))
    return codes


def endure(
    store: Path,
    folder: Path,
    options: argparse.Namespace,
    usual: float,
    chance: random.Random,
    tally: Tally,
) -> None:
    """Run the sweep until all its jobs are done, while their processes are being killed.

    Args:
        usual: seconds that a job takes alone.
    """
    log = folder / f"log{tally.sweeps}"
    waiting, running = list(SWEEP), dict[int, list[str]]()
    left = min(options.kills - tally.kills, 25)  # of a sweep; then it may end
    ends: dict[int, float] = {}
    killed: set[int] = set()
    while waiting or running:
        while waiting and len(running) < options.jobs:
            words = waiting.pop(0)
            child = fork(words, store, log, random.Random(chance.random()))
            running[child] = words
            ends[child] = time.monotonic() + chance.uniform(0, 2 * usual)
        for child in [c for c in running if c not in killed and time.monotonic() > ends[c]]:
            if len(killed.intersection(running)) < left:
                os.kill(child, chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
                killed.add(child)
        child, status = os.waitpid(-1, os.WNOHANG)
        if not child:
            time.sleep(0.005)
            continue
        words, code = running.pop(child), os.waitstatus_to_exitcode(status)
        if child in killed and code != 0:
            tally.kills, left = tally.kills + 1, left - 1
            waiting.append(words)
        elif code != 0:
            tally.lost.append(f"exit code {code}: {' '.join(words)}; see {log}")
    tally.sweeps += 1
    account(log.with_suffix(".work"), store, tally)


def account(work: Path, store: Path, tally: Tally) -> None:
    """Every artifact published once, and begun again only after a kill."""
    lines = [line.split() for line in work.read_text().splitlines()]
    began = Counter(name for word, name in lines if word == "began")
    published = Counter(name for word, name in lines if word == "published")
    tally.published += sum(published.values())
    tally.resumed += sum(began.values()) - sum(published.values())
    tally.wrong += [f"{name} was published {times} times" for name, times in published.items() if times > 1]
    litter = [path.name for path in store.glob("*/.tmp-*") if (path / "manifest.json").exists()]
    tally.wrong += [f"{name} looks whole and is not" for name in litter]


def contents(store: Path) -> dict[str, dict[str, str]]:
    """The hash of every file of every artifact, after reading each."""
    found = {}
    for artifact in Store(store).artifacts():
        artifact.verify()
        files = artifact.manifest["files"]
        found[f"{artifact.stage}/{artifact.key}"] = {name: entry["sha256"] for name, entry in files.items()}
    return found


def compare(expected: dict[str, dict[str, str]], store: Path, tally: Tally, cause: str) -> None:
    found = contents(store)
    tally.lost += [f"{name} is missing after {cause}" for name in expected.keys() - found.keys()]
    tally.wrong += [f"{name} is there after {cause}" for name in found.keys() - expected.keys()]
    for name in expected.keys() & found.keys():
        if expected[name] != found[name]:
            tally.wrong.append(f"{name} differs after {cause}")


@contextmanager
def mounted(place: Path, kilobytes: int) -> Iterator[Callable[[str], None] | None]:
    """A small disk; the function changes its options. None where this user may not mount one."""
    place.mkdir()
    size = f"size={kilobytes}k"
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "pear", str(place)], capture_output=True)
    if made.returncode:
        yield None
        return

    def remount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)

    try:
        yield remount
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def full_disk(folder: Path, expected: dict[str, dict[str, str]], tally: Tally) -> None:
    """The disk fills up in the middle of the sweep; then there is room."""
    with mounted(folder / "small", 240) as change:
        if change is None:
            say("full disk: left out, for only root may mount one")
            return
        store = folder / "small" / "store"
        codes = run_all(store, folder, jobs=4)
        if not any(codes):
            tally.wrong.append("the disk never filled up")
        contents(store)  # what is there is whole
        change("size=100m,nr_inodes=0")
        again = run_all(store, folder, jobs=4)
        tally.lost += [f"exit code {code} after the disk was full" for code in again if code]
        compare(expected, store, tally, "a full disk")
        tally.faults.append(f"full disk: {sum(map(bool, codes))} of {len(codes)} jobs stopped")
        say(tally.faults[-1])


def read_only(folder: Path, expected: dict[str, dict[str, str]], tally: Tally) -> None:
    """What is on a read-only disk is used; what is not there is an error."""
    with mounted(folder / "still", 100_000) as change:
        if change is None:
            say("read-only disk: left out, for only root may mount one")
            return
        store = folder / "still" / "store"
        run_all(store, folder, jobs=4)
        change("ro")
        reused = run_all(store, folder, jobs=4)
        tally.lost += [f"exit code {code} on a read-only disk" for code in reused if code]
        fresh = fork([*SWEEP[0], "seed=7"], store, folder / "log")
        if os.waitstatus_to_exitcode(os.waitpid(fresh, 0)[1]) != 1:
            tally.wrong.append("a new job on a read-only disk did not fail")
        compare(expected, store, tally, "a read-only disk")
        tally.faults.append(f"read-only disk: {len(reused)} jobs reused all")
        say(tally.faults[-1])


def flip(
    store: Path,
    folder: Path,
    expected: dict[str, dict[str, str]],
    flips: int,
    chance: random.Random,
    tally: Tally,
) -> None:
    """Flip one bit of a random file, read it, sweep up, and now and then make again what is gone."""
    while tally.flips < flips:
        for _ in range(min(10, flips - tally.flips)):
            files = sorted(p for p in store.glob("*/[0-9a-f]*/*") if p.stat().st_size)
            if not files:
                break
            damage(chance.choice(files), chance, tally)
        from pear_cli.cli.app import perform

        child = os.fork()
        if not child:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            os._exit(perform(["gc", "--verify", f"runtime.store={store}"]))
        os.waitpid(child, 0)
        try:
            contents(store)
        except CorruptArtifact as error:
            tally.wrong.append(f"gc --verify left {error}")
        codes = run_all(store, folder, jobs=4)
        tally.lost += [f"exit code {code} after flipped bits" for code in codes if code]
        compare(expected, store, tally, "flipped bits")
    say(f"{tally.found} of {tally.flips} flipped bits were found")


def damage(file: Path, chance: random.Random, tally: Tally) -> None:
    """Flip a bit, and see that reading the artifact finds it."""
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)
    tally.flips += 1
    folder = file.parent
    try:
        artifact = Artifact.at(folder)
        if file.suffix == ".safetensors":
            artifact.tensors(file.stem)
        elif file.name not in ("manifest.json", "manifest.sha256"):
            artifact.json(file.stem)
    except CorruptArtifact:
        tally.found += 1
    else:
        tally.wrong.append(f"a flipped bit of {folder.parent.name}/{file.name} was not found")


if __name__ == "__main__":
    sys.exit(main())
