"""Sweeps: their jobs known ahead, their book, what failed and what is missing, and going on with them."""

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from pear_cli.config.presets import config_dir
from pear_cli.errors import ConfigError, DataError, StoreError
from pear_cli.launch.composing import compositions, grid
from pear_cli.launch.sweep import multirun as multirun_module
from pear_cli.launch.sweep.multirun import JOBLIB, Multirun
from pear_cli.store import sweeps
from pear_cli.store.sweeps import BOOK, LOCK, Sweep

CONFIGS = Path(__file__).parent.parent / "configs"
FLAGS = ("--config-dir", str(CONFIGS))
TINY = (*FLAGS, "backbone=tiny", "dataset=digits", "optim.epochs=1", "runtime.threads=1")


@pytest.fixture
def quick_jobs(monkeypatch):
    """Jobs that take no time; seed 1 fails until it is mended, seed 3 is Ctrl-C once. Gives what ran."""
    ran = []

    def carry_out(cfg, launched_from, overrides, work):
        if cfg.seed == 3 and 3 not in ran:
            ran.append(3)
            raise KeyboardInterrupt
        ran.append(cfg.seed)
        if cfg.seed == 1 and "mended" not in ran:
            raise DataError("images are missing")
        return {"artifact": f"/store/train/{cfg.seed}"}

    monkeypatch.setattr("pear_cli.launch.jobs._carry_out", carry_out)
    return ran


def listed(pear):
    (line,) = pear("sweeps", "--json").out.splitlines()
    found = json.loads(line)
    return {name: found[name] for name in ("state", "done", "failed", "running", "missing")}


def a_sweep(folder, jobs=3):
    overrides = tuple((f"seed={i}",) for i in range(jobs))
    started = "2026-01-01T00:00:00+00:00"
    return Sweep("run", ("-m", "seed=range(3)"), True, str(folder), str(folder), overrides, jobs, started)


def leave(folder, number, **result):
    place = Path(folder, str(number))
    place.mkdir(parents=True)
    record = {"job": number, "overrides": [f"seed={number}"], **result}
    (place / "result.json").write_text(json.dumps(record))


def note_many(store, number):
    for i in range(20):
        sweeps.note(store, a_sweep(store / f"{number}-{i}"))


def test_a_sweep_that_is_not_to_go_on_names_the_jobs_that_were_not_run(pear, quiet, quick_jobs):
    said = pear("train", "-m", *quiet, "seed=0,1,2,4", "--keep-going=false")
    assert (said.code, said.out) == (1, "/store/train/0\n")
    assert quick_jobs == [0, 1]
    assert said.err.splitlines()[-6:-1] == [
        "job  overrides  error",
        "  1  seed=1     images are missing",
        "  2  seed=2     not run",
        "  3  seed=4     not run",
        "pear train: 1 of 4 jobs failed, 2 not run",
    ]
    assert listed(pear) == {"state": "incomplete", "done": 1, "failed": 1, "running": 0, "missing": 2}


def test_a_job_stops_between_stages_once_another_one_has_failed(monkeypatch, tmp_path):
    from pear_cli.launch import jobs

    monkeypatch.setattr(jobs, "_sweep_folder", lambda: tmp_path)
    jobs._stop_if_told()
    (tmp_path / sweeps.STOPPED).touch()
    jobs._stop_if_told()
    monkeypatch.setenv(jobs.KEEP_GOING, "false")
    with pytest.raises(jobs.Stopped):
        jobs._stop_if_told()


def test_a_value_of_keep_going_is_checked(pear):
    assert pear("run", "--keep-going=maybe").code == 2


def test_a_sweep_is_gone_on_with_from_the_folder_where_it_was_started(
    pear, quiet, quick_jobs, tmp_path, monkeypatch
):
    assert pear("train", "-m", *quiet, "seed=0,1,2").code == 1
    assert listed(pear) == {"state": "failed", "done": 2, "failed": 1, "running": 0, "missing": 0}
    (before,) = sweeps.noted(tmp_path / "outputs" / "store")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    quick_jobs.append("mended")
    said = pear("sweeps", "resume", before.id[:4], "--store", str(tmp_path / "outputs" / "store"))
    assert (said.code, said.out) == (0, "".join(f"/store/train/{seed}\n" for seed in (0, 1, 2)))
    assert not list(elsewhere.iterdir())
    monkeypatch.chdir(tmp_path)
    assert listed(pear) == {"state": "done", "done": 3, "failed": 0, "running": 0, "missing": 0}


def test_an_interrupted_sweep_says_how_to_go_on(pear, quiet, quick_jobs, tmp_path):
    said = pear("train", "-m", *quiet, "seed=0,3,4")
    (sweep,) = sweeps.noted(tmp_path / "outputs" / "store")
    assert said.code == 130
    assert said.err.endswith(f"interrupted after 1 of 3 jobs; to resume: pear sweeps resume {sweep.id}\n")
    with_store = pear("train", "-m", *quiet, "seed=1", "runtime.store=store").err
    assert with_store.endswith(f" --store {tmp_path}/store\n")
    assert listed(pear) == {"state": "incomplete", "done": 1, "failed": 0, "running": 0, "missing": 2}
    assert pear("sweeps", "resume", sweep.id).code == 0
    assert listed(pear)["done"] == 3
    assert sweeps.noted(tmp_path / "outputs" / "store") == [sweep]


def test_a_sweep_that_was_interrupted_in_its_first_job_is_listed(pear, quiet, quick_jobs):
    assert pear("train", "-m", *quiet, "seed=3,4").code == 130
    assert listed(pear) == {"state": "incomplete", "done": 0, "failed": 0, "running": 0, "missing": 2}


def test_a_sweep_that_is_running_is_not_started_twice(pear, quiet, quick_jobs, tmp_path):
    pear("train", "-m", *quiet, "seed=0", "hydra.sweep.dir=here")
    (sweep,) = sweeps.noted(tmp_path / "outputs" / "store")
    with FileLock(tmp_path / "here" / LOCK):
        assert listed(pear)["state"] == "running"
        said = pear("sweeps", "resume", sweep.id)
    assert (said.code, said.out) == (1, "")
    assert f"sweep {sweep.id} is running already" in said.err
    assert quick_jobs == [0]


def test_a_sweep_that_does_not_compose_is_not_listed(pear, quiet):
    assert pear("train", "-m", *quiet, "method=lora,lorra").code == 1
    assert pear("sweeps") == (0, "", "pear sweeps: no sweeps of outputs/store yet; pear run -m makes one\n")


def test_sweeps_of_a_store_are_a_table(pear, quiet, quick_jobs):
    pear("train", "-m", *quiet, "seed=0,2", "runtime.store=store")
    title, row = pear("sweeps", "runtime.store=store").out.splitlines()
    assert title == "id        started           state  jobs  done  failed  running  missing  command"
    assert row.split()[3:9] == ["done", "2", "2", "0", "0", "0"]
    assert row.endswith("seed=0,2 runtime.store=store")


def test_a_torn_line_in_the_book_costs_that_line_only(tmp_path):
    first, second = a_sweep(tmp_path / "a"), a_sweep(tmp_path / "b")
    sweeps.note(tmp_path, first)
    with open(tmp_path / BOOK, "ab") as file:
        file.write(b'{"command": "run", "wor')
    assert sweeps.noted(tmp_path) == [first]
    sweeps.note(tmp_path, second)
    assert sweeps.noted(tmp_path) == [first, second]


def test_many_processes_write_whole_lines(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=note_many, args=(tmp_path, i)) for i in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(sweeps.noted(tmp_path)) == 40


def test_what_became_of_jobs_is_read_from_their_folders_and_locks(tmp_path):
    leave(tmp_path, 0, artifact="/x")
    leave(tmp_path, 1, error={"message": "no"})
    (tmp_path / "2").mkdir()
    with FileLock(tmp_path / "2" / LOCK):
        found = sweeps.progress_of(a_sweep(tmp_path, jobs=4))
    assert (found.done, found.failed, found.running, found.missing) == (1, 1, 1, 1)
    assert found.state == "running"
    assert sweeps.progress_of(a_sweep(tmp_path, jobs=4)).state == "incomplete"


def test_a_job_whose_artifact_was_removed_is_missing(tmp_path):
    leave(tmp_path, 0, stage="eval", artifact=str(tmp_path / "gone"))
    assert sweeps.progress_of(a_sweep(tmp_path, jobs=1)).missing == 1


def test_results_of_other_jobs_in_the_same_folder_do_not_count(tmp_path):
    leave(tmp_path, 0, artifact="/x")
    other = Sweep("run", (), True, "/", str(tmp_path), (("seed=5",),), 1, "2026-01-01T00:00:00+00:00")
    assert sweeps.progress_of(other).done == 0


def test_an_unknown_sweep_is_an_error_that_names_near_ones(tmp_path):
    sweep = a_sweep(tmp_path / "a")
    sweeps.note(tmp_path, sweep)
    assert sweeps.locate(tmp_path, sweep.id[:3]) == sweep
    with pytest.raises(StoreError, match=f'did you mean "{sweep.id}"'):
        sweeps.locate(tmp_path, sweep.id[:-1] + "x")


def test_the_configs_of_a_grid_are_those_that_hydra_composes():
    words = ["dataset=digits,mnist5k", "method=lora,adaptformer", "prune.ratio=0,0.5", "seed=0,1"]
    jobs, _ = grid({}, words)
    assert len(jobs) == 16
    found = list(compositions({}, words, jobs))
    with initialize_config_dir(version_base="1.3", config_dir=str(config_dir())):
        for job, config in found[::5]:
            assert config == compose("config", list(job))


def looked_ahead(command="run", jobs=None, **config):
    launcher = {"_target_": JOBLIB, "n_jobs": 4}
    known = {"hydra": {"sweeper": {"n_trials": 7}, "launcher": launcher}, "runtime": {"threads": None}}
    return Multirun(command, jobs, OmegaConf.create({**known, "select": "last", **config}))


def test_a_sweeper_never_optimises_on_the_test_set():
    looked_ahead(select="val").check()
    looked_ahead(jobs=((),)).check()
    for select in ("last", "test_oracle"):
        with pytest.raises(ConfigError, match="add select=val"):
            looked_ahead(select=select).check()
    with pytest.raises(ConfigError, match="pear score measures nothing"):
        looked_ahead("score", select="val").check()


@pytest.mark.parametrize(("jobs", "threads"), [(3, 5), (9, 4), (1, None)])
def test_jobs_side_by_side_share_the_cores(jobs, threads, monkeypatch):
    joblib = pytest.importorskip("joblib")
    monkeypatch.setattr(joblib, "cpu_count", lambda: 16)
    monkeypatch.setattr(joblib, "effective_n_jobs", lambda n: n)
    assert looked_ahead(jobs=((),) * jobs).threads() == threads
    assert looked_ahead(jobs=((),) * jobs, runtime={"threads": 2}).threads() is None


PLUGINS = {
    "hydra/launcher=pear_joblib": "hydra_joblib_launcher",
    "hydra/launcher=pear_slurm": "hydra_submitit_launcher",
    "hydra/launcher=pear_ray": "hydra_ray_launcher",
    "hydra/sweeper=pear_optuna": "hydra_optuna_sweeper",
}


@pytest.mark.parametrize(("preset", "plugin"), PLUGINS.items())
def test_a_preset_of_an_engine_composes(preset, plugin):
    pytest.importorskip(f"hydra_plugins.{plugin}")
    jobs, config = grid({}, [preset, "select=val", "seed=0,1"])
    assert (jobs is None) == ("optuna" in preset)
    asked = {"slurm": "launcher.gpus_per_node", "ray": "launcher.ray.remote.num_gpus"}
    for name, key in asked.items():
        if name in preset:
            assert OmegaConf.select(config.hydra, key) == 1


@pytest.mark.parametrize(("preset", "plugin"), PLUGINS.items())
def test_a_missing_engine_is_an_error_with_its_remedy(preset, plugin, pear, quiet):
    try:
        __import__(f"hydra_plugins.{plugin}")
    except ImportError:
        said = pear("train", "-m", *quiet, preset)
        assert said.code == 1
        assert "needs a plugin; install it: pip install 'pear-cli[" in said.err
    else:
        pytest.skip("it is installed")


def test_what_a_sweeper_optimises_is_the_accuracy_on_val200_of_the_last_training(pear, quiet, monkeypatch):
    from pear_cli.launch import jobs

    returned = []
    carry_out = jobs._job
    monkeypatch.setattr(jobs, "_job", lambda *args: returned.append(carry_out(*args)))
    said = pear("run", *quiet, *TINY, "optim.batch_size=200", "select=val", "--json")
    assert said.code == 0, said.err
    record = json.loads(said.out)
    (adapted,) = (
        manifest["metrics"]
        for path in Path("outputs/store/train").glob("*/manifest.json")
        if "checkpoint" in (manifest := json.loads(path.read_text()))["inputs"]
    )
    assert returned == [adapted["val200_accuracy"]] == [record["objective"]]
    assert record["metrics"]["accuracy"] != record["objective"]
    pear("run", *quiet, *TINY, "optim.batch_size=200", "select=last", "prune.ratio=0")
    assert returned[1] is None


def test_jobs_side_by_side_share_stages_and_have_the_results_of_jobs_in_turn(tmp_path, pear, quiet):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = (*TINY, "optim.batch_size=200", "prune.ratio=0.25,0.5", "-m", "hydra/launcher=pear_joblib")
    line = [sys.executable, "-m", "pear_cli", "run", *words, "runtime.store=beside"]
    beside = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
    assert beside.returncode == 0, beside.stderr
    logs = [log.read_text() for log in tmp_path.glob("outputs/sweeps/*/*/*/stderr.log")]
    assert (len(logs), "".join(logs).count("train 1/1 loss")) == (2, 1)
    assert pear("run", *quiet, *words[:-1], "runtime.store=in_turn").code == 0
    assert files("beside") == files("in_turn")


def files(store):
    """What every artifact of a store holds, latencies aside."""
    return {
        str(path.relative_to(store)): json.loads(path.read_text())["files"]
        for path in Path(store).glob("*/*/manifest.json")
    }


def test_a_sweep_that_stops_before_its_first_job_gives_no_hint_to_resume(pear, quiet):
    said = pear("run", "-m", *quiet, "share=ranked,nosuch")
    assert said.code == 1
    assert 'no share "nosuch"' in said.err
    assert "pear sweeps resume" not in said.err


@pytest.mark.parametrize(
    ("launcher", "gpu", "refused"),
    [
        ({"ray": {"init": {}, "remote": {"num_gpus": 1}}}, False, True),
        ({"ray": {"init": {}, "remote": {"num_gpus": 1}}}, True, False),
        ({"ray": {"init": {}, "remote": {"num_gpus": 0}}}, False, False),
        ({"ray": {"init": {"address": "auto"}, "remote": {"num_gpus": 1}}}, False, False),
        ({"n_jobs": 2}, False, False),
    ],
)
def test_jobs_on_ray_do_not_wait_for_a_gpu_that_no_machine_has(launcher, gpu, refused, tmp_path, monkeypatch):
    monkeypatch.setattr(multirun_module, "GPUS", (str(tmp_path if gpu else tmp_path / "none"),))
    sweep = Multirun("train", (), OmegaConf.create({"hydra": {"launcher": launcher}}))
    if refused:
        with pytest.raises(
            ConfigError, match=r"num_gpus = 1: .* use hydra\.launcher\.ray\.remote\.num_gpus=0"
        ):
            sweep.check()
    else:
        sweep.check()
