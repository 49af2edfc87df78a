"""The result files that the jobs of a launch leave, wherever they run."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hydra.errors import HydraException
from omegaconf import OmegaConf

from pear_cli.launch.work import Record
from pear_cli.store.sweeps import RESULT, STOPPED

NOT_RUN = "NotRun"
"""Type of the error of a job that was not begun."""


@dataclass
class Ledger:
    """Where a launch leaves its result files, and which of those there are its own."""

    folder: Path | None = None
    sweep: bool = False
    before: dict[Path, int] = field(default_factory=dict)

    def open(self, folder: str, sweep: bool) -> None:
        """Note the output folder; what is in it already is another launch's."""
        self.folder, self.sweep = Path(folder).absolute(), sweep
        self.before = self._stamps()
        with suppress(OSError):  # whoever makes the folder tells that it cannot be
            (self.folder / STOPPED).unlink(missing_ok=True)

    def fresh(self) -> set[Path]:
        """This launch's files: the overrides of each job that has begun, the result of each that ended."""
        return {path for path, stamp in self._stamps().items() if self.before.get(path) != stamp}

    def read(self, path: Path) -> Record:
        """What a job left in its result file."""
        record: Record = json.loads(path.read_text(encoding="utf-8"))
        return record

    @property
    def can_be_written(self) -> bool:
        """Whether the output folder is there; of a sweep it has been made by then, if that was possible."""
        return self.folder is not None and self.folder.is_dir()

    @property
    def stopped(self) -> bool:
        """Whether a job has failed in a sweep that then was to stop."""
        return self.folder is not None and (self.folder / STOPPED).exists()

    def refusal(self, error: Exception) -> str | None:
        """What to tell where the output folder cannot be made; None for any other error."""
        if self.folder is None or not isinstance(error, OSError) or isinstance(error, HydraException):
            return None
        key = "hydra.sweep.dir" if self.sweep else "hydra.run.dir"
        return (
            f"cannot write to {self.folder} ({error.strerror or error}); name other folders for the output "
            f"and the artifacts: {key}=DIR runtime.store=DIR"
        )

    def records(self, jobs: Sequence[Sequence[str]], complete: bool) -> list[Record]:
        """The result of each job, in order.

        Args:
            jobs: the overrides of each job of a sweep, as far as they are known.
            complete: a job that began and left no result has failed; where a launcher gave up, the others
                were not run.
        """
        fresh = self.fresh()
        records = [self.read(path) for path in fresh if path.name == RESULT]
        done = {path.parent for path in fresh if path.name == RESULT}
        for began in sorted(path for path in fresh if path.name != RESULT):
            folder = began.parent.parent
            if complete and not self.stopped and folder not in done:
                message = f"the job ended without a result; see {folder}"
                overrides = OmegaConf.to_container(OmegaConf.load(began))
                number = int(folder.name) if folder.name.isdigit() else None
                records.append({"job": number, "overrides": overrides, "error": {"message": message}})
        if self.stopped or (complete and records):
            known = {record["job"] for record in records}
            error = {"type": NOT_RUN, "message": "not run"}
            rest = [(number, job) for number, job in enumerate(jobs) if number not in known]
            records += [{"job": number, "overrides": list(job), "error": error} for number, job in rest]
        return sorted(records, key=lambda record: (record["job"] is None, record["job"] or 0))

    def _stamps(self) -> dict[Path, int]:
        if self.folder is None:
            return {}
        where = "**/" if self.sweep else ""
        found = [p for name in (RESULT, ".hydra/overrides.yaml") for p in self.folder.glob(where + name)]
        stamps = {}
        for path in found:
            with suppress(FileNotFoundError):  # a job that is begun again removes its old result
                stamps[path] = path.stat().st_mtime_ns
        return stamps
