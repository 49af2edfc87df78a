"""Hydra's flags, result files, stdout and exit codes, with jobs that take no time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pear_cli.errors import DataError
from pear_cli.launch.completion import complete
from pear_cli.launch.flags import FLAGS, UsageError, reorder


@pytest.fixture
def noisy_jobs(monkeypatch):
    """Jobs that print in every way there is; seed 1 is the user's mistake, seed 2 ours, seed 3 Ctrl-C."""

    def carry_out(cfg, launched_from, overrides, work):
        print("a library prints")
        os.write(1, b"C code prints\n")
        subprocess.run([sys.executable, "-c", "print('a child prints')"], check=True)
        if cfg.seed == 1:
            raise DataError("images are missing: /nowhere", "run: make images")
        if cfg.seed == 2:
            raise ZeroDivisionError("our own bug")
        if cfg.seed == 3:
            raise KeyboardInterrupt
        return {"artifact": f"/store/train/{cfg.seed}", "metrics": {"accuracy": 0.5}}

    monkeypatch.setattr("pear_cli.launch.jobs._carry_out", carry_out)


VALUES = {"--cfg": "job", "--info": "plugins"}


@given(
    name=st.sampled_from(sorted(FLAGS)),
    overrides=st.lists(st.sampled_from(["a=1", "b=2,3", "~c", "+d/e=f"]), max_size=4),
    place=st.integers(0, 4),
    spelling=st.sampled_from(["long", "short", "equals"]),
)
def test_a_flag_may_stand_anywhere_among_the_overrides(name, overrides, place, spelling):
    if name == "--resolve":
        return  # needs another flag
    flag = FLAGS[name]
    value = VALUES.get(name, "x") if flag.takes else None
    written = flag.short if spelling == "short" and flag.short else name
    words = (
        [f"{written}={value}"] if spelling == "equals" and value else [written, *([value] if value else [])]
    )
    line = [*overrides[:place], *words, *overrides[place:]]
    assert reorder(line) == ({name: value}, overrides)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a=1 --mulitrun", 'no flag --mulitrun; did you mean "--multirun"?'),
        ("--cfg jbo", '--cfg cannot be "jbo"; did you mean "job"? one of job, hydra, all'),
        ("a=1 --cfg", "--cfg needs a value; one of job, hydra, all"),
        ("--info defaultz", '--info cannot be "defaultz"; did you mean "defaults"?'),
        ("--multirun=yes", "--multirun takes no value"),
        ("-m --cfg job", "--multirun and --cfg exclude each other"),
        ("--resolve", "--resolve needs --cfg"),
        ("--experimental-rerun x", "--experimental-rerun is refused"),
    ],
)
def test_flags_that_make_no_command_are_told_why(line, message):
    with pytest.raises(UsageError) as error:
        reorder(line.split())
    assert message in str(error.value)


def test_info_without_a_value_means_all_of_it():
    assert reorder(["--info", "a=1"]) == ({"--info": "all"}, ["a=1"])


@pytest.mark.usefixtures("noisy_jobs")
def test_stdout_carries_the_artifact_and_nothing_else(pear, quiet):
    said = pear("train", *quiet)
    assert (said.code, said.out) == (0, "/store/train/0\n")
    for words in ("a library prints", "C code prints", "a child prints"):
        assert words in said.err


@pytest.mark.usefixtures("noisy_jobs")
def test_a_job_leaves_its_result_in_its_output_folder(pear, quiet, tmp_path):
    pear("train", *quiet, "seed=4")
    (path,) = tmp_path.glob("outputs/runs/*/*/result.json")
    result = json.loads(path.read_text())
    assert result["command"] == "train"
    assert "seed=4" in result["overrides"]
    assert result["artifact"] == "/store/train/4"


@pytest.mark.usefixtures("noisy_jobs")
def test_a_users_mistake_is_told_in_its_own_words(pear, quiet):
    said = pear("train", *quiet, "seed=1")
    assert (said.code, said.out) == (1, "")
    assert said.err.endswith("pear train: images are missing: /nowhere\nrun: make images\n")
    assert "Error executing job" not in said.err


@pytest.mark.usefixtures("noisy_jobs")
def test_a_mistake_of_ours_says_how_to_see_where(pear, quiet, monkeypatch):
    said = pear("train", *quiet, "seed=2")
    assert said.code == 1
    assert said.err.endswith("pear train: ZeroDivisionError: our own bug; PEAR_TRACEBACK=1 shows where\n")
    assert "Traceback" not in said.err
    monkeypatch.setenv("PEAR_TRACEBACK", "1")
    assert "Traceback" in pear("train", *quiet, "seed=2").err


@pytest.mark.usefixtures("noisy_jobs")
def test_an_interrupted_job_exits_with_130(pear, quiet):
    said = pear("train", *quiet, "seed=3")
    assert (said.code, said.out) == (130, "")
    assert "interrupted" in said.err


@pytest.mark.usefixtures("noisy_jobs")
def test_a_sweep_goes_on_after_a_failed_job_and_prints_the_others_in_order(pear, quiet):
    said = pear("train", *quiet, "seed=0,1,4", "-m")
    assert (said.code, said.out) == (1, "/store/train/0\n/store/train/4\n")
    assert said.err.splitlines()[-5:-1] == [
        "job  overrides  error",
        "  1  seed=1     images are missing: /nowhere",
        "                run: make images",
        "pear train: 1 of 3 jobs failed",
    ]


@pytest.mark.usefixtures("noisy_jobs")
def test_a_sweep_of_good_jobs_exits_with_0_though_more_than_ten(pear, quiet):
    said = pear("train", *quiet, "-m", "seed=range(20,32)")
    assert said.code == 0
    assert said.out.splitlines() == [f"/store/train/{seed}" for seed in range(20, 32)]


@pytest.mark.usefixtures("noisy_jobs")
def test_json_gives_one_line_a_job_failed_ones_too(pear, quiet):
    said = pear("train", "-m", *quiet, "--json", "seed=0,1")
    good, bad = map(json.loads, said.out.splitlines())
    assert (good["job"], good["metrics"]) == (0, {"accuracy": 0.5})
    assert (bad["job"], bad["error"]["type"]) == (1, "DataError")
    assert "traceback" not in bad["error"]


@pytest.mark.usefixtures("noisy_jobs")
def test_an_interrupted_sweep_prints_what_was_finished(pear, quiet):
    said = pear("train", "-m", *quiet, "seed=0,3,4")
    assert (said.code, said.out) == (130, "/store/train/0\n")


def test_a_job_without_a_result_has_failed(pear, quiet, monkeypatch):
    monkeypatch.setattr("pear_cli.launch.jobs._job", lambda *args: None)
    said = pear("train", "-m", *quiet, "seed=0,1")
    assert (said.code, said.out) == (1, "")
    assert said.err.count("ended without a result") == 2


@pytest.mark.usefixtures("noisy_jobs")
def test_results_of_an_earlier_sweep_in_the_same_folder_are_not_this_ones(pear, quiet):
    assert pear("train", "-m", *quiet, "hydra.sweep.dir=here", "seed=0,4,5").code == 0
    said = pear("train", "-m", *quiet, "hydra.sweep.dir=here", "seed=6")
    assert said.out == "/store/train/6\n"
    failed = pear("train", *quiet, "hydra.run.dir=here/0", "seed=1")
    assert (failed.code, failed.out) == (1, "")


@pytest.mark.usefixtures("noisy_jobs")
def test_two_runs_in_one_second_have_two_folders(pear, quiet, tmp_path):
    pear("train", *quiet)
    pear("train", *quiet)
    assert len(list(tmp_path.glob("outputs/runs/*/*/result.json"))) == 2


@pytest.mark.usefixtures("noisy_jobs")
def test_the_process_is_as_before_after_a_launch(pear, quiet, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["before"])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    pear("train", *quiet, "seed=1")
    assert sys.argv == ["before"]
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_relative_folders_count_from_where_pear_was_started(pear, quiet, monkeypatch, tmp_path):
    seen = {}

    def read(cfg, overrides):
        seen.update(store=cfg.runtime.store, root=cfg.dataset.root, overrides=overrides)
        raise DataError("seen enough")

    monkeypatch.setattr("pear_cli.launch.jobs.read", read)
    pear("train", *quiet, "hydra.job.chdir=true", "runtime.store=my/store", "dataset.root=../images")
    assert seen["store"] == str(tmp_path / "my" / "store")
    assert seen["root"] == str(tmp_path.parent / "images")
    assert "runtime.store=my/store" in seen["overrides"]


@pytest.mark.parametrize(
    ("words", "word", "some"),
    [
        ([], "meth", {"method=", "method."}),
        ([], "method=ad", {"method=adaptformer"}),
        (["-m", "share=top"], "share.", {"share.rule=", "share.rule=top"}),
        (["method=adaptformer"], "method.b", {"method.bias=", "method.bias=false"}),
    ],
)
def test_completion_knows_groups_presets_and_keys(words, word, some, monkeypatch):
    monkeypatch.delenv("COMP_WORDS", raising=False)
    assert some <= set(complete(words, word))


def test_completion_gives_bash_the_part_after_the_equals_sign(monkeypatch):
    monkeypatch.setenv("COMP_WORDS", "\n".join(["pear", "train", "seed", "=", "1", "method", "=", "ad"]))
    monkeypatch.setenv("COMP_CWORD", "7")
    assert complete(["seed", "=", "1", "method", "="], "ad") == ["adaptformer"]


def test_the_folders_callback_is_silent_outside_a_launch():
    from omegaconf import OmegaConf

    from pear_cli.launch.sweep.under_way import Folders

    config = OmegaConf.create({"hydra": {"run": {"dir": "x"}, "sweep": {"dir": "y"}}})
    Folders().on_run_start(config)
    Folders().on_multirun_start(config)
    assert not Path("x").exists()


def test_completion_knows_the_presets_of_a_further_folder(monkeypatch):
    monkeypatch.delenv("COMP_WORDS", raising=False)
    folder = str(Path(__file__).parent.parent / "configs")
    for words in (["--config-dir", folder], [f"--config-dir={folder}", "-m"], ["-cd", folder]):
        assert "backbone=tiny" in complete(words, "backbone=")
    assert "backbone=tiny" not in complete([], "backbone=")


@pytest.mark.usefixtures("noisy_jobs")
def test_a_failed_job_of_a_sweep_is_told_when_it_fails_and_at_the_end_and_not_by_hydra(pear, quiet):
    said = pear("train", "-m", *quiet, "seed=0,1,2,4")
    assert (said.code, said.out) == (1, "/store/train/0\n/store/train/4\n")
    assert "Error executing" not in said.err
    assert said.err.count("images are missing") == 2
    assert said.err.count("our own bug") == 2


@pytest.mark.usefixtures("noisy_jobs")
def test_a_sweep_in_batches_goes_on_after_a_failed_job(pear, quiet):
    said = pear("train", "-m", *quiet, "hydra.sweeper.max_batch_size=1", "seed=1,4")
    assert (said.code, said.out) == (1, "/store/train/4\n")


@pytest.mark.usefixtures("noisy_jobs")
def test_results_that_nobody_reads_do_not_end_a_launch(monkeypatch, tmp_path, capfd):
    from pear_cli.cli.app import perform

    monkeypatch.chdir(tmp_path)
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert perform(["train", "-q", "-m", "seed=0,4,1"]) == 1
        monkeypatch.undo()
    assert "images are missing" in capfd.readouterr().err


@pytest.mark.parametrize("flags", [("--info",), ("--cfg", "all"), ("--hydra-help",)], ids=str)
def test_what_is_shown_to_a_reader_who_leaves_early_ends_quietly(flags, monkeypatch, capfd):
    from pear_cli.cli.app import perform

    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert perform(["run", *flags]) == 0
        monkeypatch.undo()
    assert capfd.readouterr().err == ""


def test_info_is_shown_on_stdout(pear):
    said = pear("run", "--info", "config", "prune.ratio=0.25")
    assert (said.code, said.err) == (0, "")
    assert "ratio: 0.25" in said.out


@pytest.mark.parametrize(("mode", "key"), [((), "hydra.run.dir"), (("-m",), "hydra.sweep.dir")])
@pytest.mark.usefixtures("noisy_jobs")
def test_an_output_folder_that_cannot_be_made_is_named_with_the_remedy(pear, quiet, tmp_path, mode, key):
    (tmp_path / "outputs").touch()
    said = pear("train", *quiet, *mode)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(f"pear train: cannot write to {tmp_path}/outputs/")
    assert said.err.endswith(f"the output and the artifacts: {key}=DIR runtime.store=DIR\n")
    assert said.err.count("\n") == 1
    assert pear("train", *quiet, *mode, f"{key}=elsewhere", "runtime.store=store").code == 0


def test_ctrl_c_once_all_is_told_changes_nothing(tmp_path):
    code = (
        "import atexit, os, signal, sys\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        "sys.argv = ['pear', '--version']\n"
        "from pear_cli.cli.app import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_jobs_in_other_processes_leave_stdout_alone(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = "-m hydra/launcher=joblib hydra.launcher.n_jobs=2 seed=0,-1,1 dataset=digits backbone=tiny"
    tiny = f"--config-dir {Path(__file__).parent.parent / 'configs'} optim.epochs=1 runtime.threads=1 -q"
    line = [sys.executable, "-m", "pear_cli", "train", *words.split(), *tiny.split()]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert [Path(path).parent.name for path in done.stdout.splitlines()] == ["train", "train"]
    assert done.stderr.splitlines() == [
        "job  overrides  error",
        "  1  seed=-1    seed = -1 is out of range: 0 to 18446744073709551615",
        "pear train: 1 of 3 jobs failed",
    ]


def test_frozen_weights_of_ones_own_count_from_where_pear_was_started(pear, quiet, monkeypatch, tmp_path):
    seen = []

    def read(cfg, words):
        seen.append(cfg.backbone.weights)
        raise DataError("seen enough")

    monkeypatch.setattr("pear_cli.launch.jobs.read", read)
    (tmp_path / "my.safetensors").touch()
    for weights in ("my.safetensors", "pear_mini", "absent.safetensors"):
        pear("train", *quiet, f"backbone.weights={weights}")
    assert seen == [str(tmp_path / "my.safetensors"), "pear_mini", "absent.safetensors"]


@pytest.mark.parametrize("name", ["${seed}", "it's ${oc.env:HOME}"])
@pytest.mark.parametrize("words", [["seed=1"], ["-m", "seed=0,1"], ["seed=1", "--dry-run"]])
def test_a_folder_that_hydra_would_resolve_is_refused_and_nothing_is_left_elsewhere(
    pear, quiet, tmp_path, monkeypatch, name, words
):
    place = tmp_path / "there" / name
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    said = pear("train", *quiet, *words)
    assert (said.code, said.out) == (1, "")
    assert "start it in another folder, or rename this one" in said.err
    assert [path for path in (tmp_path / "there").rglob("*") if path != place] == []
