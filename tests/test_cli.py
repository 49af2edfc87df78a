"""The command line as a user meets it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAVY = ("torch", "timm", "torchvision")


def imported(words: str, folder: Path) -> tuple[set[str], subprocess.CompletedProcess[str]]:
    """The heavy libraries that a command line imports, in a process of its own."""
    code = (
        "import sys\nfrom pear_cli.cli import perform\n"
        "try:\n    perform(sys.argv[1:])\nfinally:\n"
        f"    print('imported', [name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words.split()], capture_output=True, text=True, cwd=folder
    )
    return {name for name in HEAVY if name in done.stderr.splitlines()[-1]}, done


@pytest.mark.parametrize(
    "words", ["--help", "train --help", "train --cfg job prune.ratio=0.5", "run method=adaptformer -c all"]
)
def test_help_and_cfg_import_nothing_heavy(words, tmp_path):
    heavy, done = imported(words, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not heavy


def test_a_wrong_config_is_refused_before_torch_is_imported(tmp_path):
    heavy, done = imported("train prune.ratio=1.2", tmp_path)
    assert "prune.ratio = 1.2 is out of range" in done.stderr
    assert not heavy


@pytest.mark.skipif(bool(os.environ.get("PYTEST_XDIST_WORKER")), reason="timing needs a processor of its own")
@pytest.mark.parametrize(("words", "seconds"), [("--help", 0.5), ("train --cfg job", 1.5)])
def test_help_and_cfg_are_quick(words, seconds):
    def once() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "pear_cli", *words.split()], capture_output=True, check=True)
        return time.perf_counter() - start

    assert min(once() for _ in range(3)) < seconds


def test_cfg_shows_the_config_on_stdout(pear):
    said = pear("train", "prune.ratio=0.25", "--cfg", "job", "method=adaptformer", "--package=prune")
    assert said.code == 0
    assert said.out.startswith("# @package prune\nratio: 0.25\n")
    assert said.err == ""


ERRORS = [
    ("method=lorra", 1, 'no method "lorra"; did you mean "lora"? methods: adaptformer,'),
    ("prun.ratio=0.5", 1, 'no setting "prun.ratio"; did you mean "prune.ratio"?'),
    (
        "prune.ratioo=0.5",
        1,
        'no setting "prune.ratioo"; did you mean "prune.ratio"? settings: ratio, by, scope',
    ),
    ("prune.ratio.x=1", 1, 'no setting "prune.ratio.x"; did you mean "prune.ratio"?'),
    ("bias=true", 1, 'no setting "bias"; settings: seed, select, phase, dataset,'),
    ("rank=4", 1, "did you mean knowledge.rank or method.rank?"),
    ("hydra.run.dri=x", 1, 'did you mean "hydra.run.dir"?'),
    ("prune=0.5", 1, 'no prune "0.5"; presets: default; to set one value write prune.KEY=0.5'),
    ("prune.ratio=0.5,0.6", 1, "prune.ratio=0.5,0.6 has several values; add -m to sweep over them"),
    ("prune.ratio=1.2", 1, "prune.ratio = 1.2 is out of range: 0 <= ratio < 1"),
    ("prune.ratio=abc", 1, "prune.ratio: Value 'abc'"),
    ("prune.by=weight", 1, "prune.by"),
    ("seed=-1", 1, "seed = -1 is out of range"),
    ("optim.lr=${nothing}", 1, "Interpolation key 'nothing' not found"),
    ("hydra/launcher=basik", 1, 'no hydra/launcher "basik"; did you mean "basic"?'),
    ("--config-dir=/nowhere", 1, "Additional config directory '/nowhere' not found"),
    ("--config-name=other", 1, "Cannot find primary config 'other'"),
    ("+prune.ratio=1", 1, "An item is already at 'prune.ratio'"),
    ("ratio", 2, '"ratio" is not an override'),
    ("prune.ratio=[1", 2, "is not an override"),
    ("--josn", 2, 'no flag --josn; did you mean "--json"?'),
]


@pytest.mark.parametrize(("word", "code", "message"), ERRORS, ids=[word for word, _, _ in ERRORS])
def test_an_error_is_one_line_or_two_with_what_and_the_remedy(pear, quiet, word, code, message):
    said = pear("train", *quiet, word)
    assert (said.code, said.out) == (code, "")
    assert said.err.startswith("pear train: ")
    assert message in said.err
    assert len(said.err.splitlines()) <= 2


def test_an_unknown_preset_in_a_sweep_stops_it_before_its_first_job(pear, quiet, tmp_path):
    said = pear("train", "-m", *quiet, "method=linear,lorra")
    assert said.code == 1
    assert 'no method "lorra"' in said.err
    assert not list(tmp_path.rglob("result.json"))


def test_a_mistyped_command_names_the_near_one(pear):
    said = pear("trian", "seed=1")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith('pear: no command "trian"; did you mean "train"? commands: train, score,')


def test_pear_alone_shows_its_help(pear):
    said = pear()
    assert said.code == 0
    assert "prune-share" in said.out


def test_the_version_is_one_line(pear):
    said = pear("--version")
    assert said.code == 0
    assert said.out.startswith("pear 0.")


@pytest.mark.parametrize("command", ["train", "score", "prune-share", "checkpoint", "eval", "run"])
def test_each_commands_help_has_examples_and_all_flags(pear, command):
    from pear_cli.flags import FLAGS

    said = pear(command, "--help")
    assert said.code == 0
    assert f"pear {command} " in said.out.partition("Arguments:")[0].partition("\n")[2]
    assert all(name in said.out for name in FLAGS)


def test_run_refuses_a_phase(pear, quiet):
    said = pear("run", *quiet, "phase=dense")
    assert said.code == 1
    assert "leave phase out" in said.err


@pytest.mark.parametrize("command", ["score", "prune-share", "checkpoint"])
def test_a_method_without_adapters_has_nothing_to_score_or_share(pear, quiet, command):
    said = pear(command, *quiet, "method=linear")
    assert said.code == 1
    assert "no adapters" in said.err


def test_a_missing_input_names_the_command_that_makes_it(pear, quiet):
    said = pear("eval", "prune.ratio=0.25", *quiet)
    assert said.code == 1
    assert "run: pear run prune.ratio=0.25" in said.err


def test_the_store_of_the_commands_is_the_store_of_the_config():
    from omegaconf import OmegaConf

    from pear_cli.cli.options import STORE
    from pear_cli.config import config_dir

    assert OmegaConf.load(config_dir() / "runtime" / "default.yaml").store == str(STORE)


def test_ls_show_and_rm_look_after_what_a_store_holds(pear, finished):
    store = f"--store={finished.store.root}"
    key = finished.made["eval"].key
    assert "eval" in pear("ls", store).out
    assert json.loads(pear("ls", store, "stage=eval", "--json").out)["key"] == key
    assert key in pear("show", key[:8], store).out
    kept = pear("rm", finished.made["train"].key, store)
    assert kept.code == 1
    assert "pear rm --recursive" in kept.err
    assert pear("gc", "--dry-run", store).code == 0


def test_export_writes_one_file_and_prints_its_name(pear, finished, tmp_path):
    words = (finished.made["eval"].key, "--out=x.safetensors", f"--store={finished.store.root}")
    assert pear("export", *words).out == "x.safetensors\n"
    assert (tmp_path / "x.safetensors").is_file()
    assert pear("export", *words).code == 1


def test_sites_lists_the_slots_of_a_backbone(pear):
    said = pear("sites", "backbone.args.depth=3")
    assert "attn.q\t3\t128\t128" in said.out.splitlines()
    assert pear("sites", "backbone=timmm").err.startswith(
        'pear sites: no backbone "timmm"; did you mean "timm"?'
    )


@pytest.mark.parametrize("words", [["show"], ["export", "abcd"], ["gc", "--older-than=soon"]])
def test_wrong_usage_is_one_line_and_exits_with_2(pear, words):
    said = pear(*words)
    assert said.code == 2
    assert said.err.startswith(f"pear {words[0]}: ")
    assert len(said.err.splitlines()) == 1
