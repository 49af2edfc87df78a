"""What a result was computed with."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("pear-cli", "torch", "timm", "safetensors")


def environment(
    *,
    device: str | None = None,
    threads: int | None = None,
    processes: int | None = None,
    folder: Path | None = None,
) -> dict[str, str | int]:
    """Describe the software and the machine for a manifest; what is unknown is left out.

    Args:
        device: where it was computed, such as `cpu` or the name of a GPU.
        threads: CPU threads that were used, by each process.
        processes: how many took part.
        folder: where pear was started, for the git commit there; the current folder if None.
    """
    found: dict[str, str | int | None] = {name: _version(name) for name in PACKAGES}
    found |= {"python": platform.python_version(), "platform": platform.platform()}
    found |= {"git_commit": _commit(folder), "device": device, "threads": threads, "processes": processes}
    return {name: value for name, value in found.items() if value is not None}


def memory() -> int:
    """Bytes of memory that this process may use: the machine's, or the control group's limit."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(whole, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no control group, or "max"
        return whole


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit(folder: Path | None) -> str | None:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--verify", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=2
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
