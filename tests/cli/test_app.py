"""The command line as a user meets it."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

CONFIGS = Path(__file__).parent.parent / "configs"
FLAGS = ("--config-dir", str(CONFIGS))
TINY = ("backbone=tiny", "dataset=digits", "optim.epochs=1", "optim.batch_size=200", "runtime.threads=1")
HEAVY = ("torch", "timm", "torchvision")
COMMANDS = ("train", "score", "prune-share", "checkpoint", "eval", "run", "audit")


def imported(words: str, folder: Path) -> tuple[set[str], subprocess.CompletedProcess[str]]:
    """The heavy libraries that a command line imports, in a process of its own."""
    code = (
        "import sys\nfrom pear_cli.cli.app import perform\n"
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


def test_looking_planning_and_running_what_is_there_already_import_nothing_heavy(tmp_path):
    words = " ".join((*FLAGS, *TINY, "method.rank=2", "optim.adapt_epochs=1"))
    made, ran = imported(f"run {words}", tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "torch" in made
    for light in (
        f"run {words}",
        f"run {words} --dry-run",
        f"run -m {words} seed=0,1 --dry-run",
        "ls",
        "sweeps",
    ):
        heavy, done = imported(light, tmp_path)
        assert (done.returncode, heavy) == (0, set()), f"{light}: {done.stderr}"
    assert imported(f"run {words}", tmp_path)[1].stdout == ran.stdout


@pytest.mark.parametrize("command", ["train", "audit"])
def test_a_wrong_config_is_refused_before_torch_is_imported(command, tmp_path):
    heavy, done = imported(f"{command} prune.ratio=1.2", tmp_path)
    assert "prune.ratio = 1.2 is out of range" in done.stderr
    assert not heavy


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
    ("bias=true", 1, 'no setting "bias"; settings: score, seed, select, phase, dataset,'),
    ("rank=4", 1, "did you mean knowledge.rank or method.rank?"),
    ("hydra.run.dri=x", 1, 'did you mean "hydra.run.dir"?'),
    ("prune=0.5", 1, 'no prune "0.5"; presets: default; to set one value write prune.KEY=0.5'),
    ("prune.ratio=0.5,0.6", 1, "prune.ratio=0.5,0.6 has several values; add -m to sweep over them"),
    ("prune.ratio=1.2", 1, "prune.ratio = 1.2 is out of range: 0 <= ratio < 1"),
    ("runtime.store=", 1, "runtime.store is empty: write a value, or leave it out"),
    ("prune.ratio=abc", 1, "prune.ratio = abc is not a number"),
    ("prune.by=weight", 1, 'prune.by = "weight" is unknown; use count, parameters'),
    ("seed=-1", 1, "seed = -1 is out of range"),
    ("optim.lr=${nothing}", 1, "Interpolation key 'nothing' not found"),
    ("hydra/launcher=basik", 1, 'no hydra/launcher "basik"; did you mean "basic"?'),
    ("--config-dir=/nowhere", 1, "Additional config directory '/nowhere' not found"),
    ("--config-name=other", 1, "Cannot find primary config 'other'"),
    ("~prune", 1, "prune is gone: every experiment has one; leave out ~prune"),
    ("~dataset", 1, "dataset is gone: every experiment has one"),
    ("seed=00", 1, 'seed = "00" is text; write a whole number without leading zeros'),
    ("runtime.device=foo", 1, 'runtime.device = "foo" is unknown; use auto, cpu, cuda, cuda:N or mps'),
    ("backbone.std=[0,0.5,0.5]", 1, "backbone.std = 0.0 is out of range: 1e-06 to 1000, or null"),
    ("backbone.std=0", 1, "backbone.std = 0 is not a list"),
    ("knowledge.beta=nan", 1, "pear train: knowledge.beta = nan is not a finite number"),
    ("method.lr=inf", 1, "pear train: method.lr = inf is not a finite number"),
    ("backbone.weights=/etc/passwd", 1, "/etc/passwd is not a file of weights: safetensors, "),
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


def test_a_group_that_takes_no_value_is_the_one_that_is_told(pear, quiet):
    said = pear("train", *quiet, *FLAGS, "backbone=tiny", "prune=null")
    assert 'no prune "null"; presets: default; to set one value write prune.KEY=null' in said.err


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


@pytest.mark.parametrize("command", COMMANDS)
def test_each_commands_help_has_examples_and_all_flags(pear, command):
    from pear_cli.launch import flags

    said = pear(command, "--help")
    assert said.code == 0
    assert f"pear {command} " in said.out.partition("Arguments:")[0].partition("\n")[2]
    assert all(name in said.out for name in (*flags.FLAGS, "--json", "--quiet"))


def examples(command):
    """The command lines in a command's help."""
    import typer

    from pear_cli.cli.app import app

    help_text = typer.main.get_command(app).commands[command].help
    return [shlex.split(line)[1:] for line in re.findall(rf"^pear {command}\b.*?(?=  |$)", help_text, re.M)]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_example_in_the_help_composes(pear, command):
    for line in examples(command):
        words = [word.partition(",")[0] for word in line if word not in ("-m", "--json")]
        said = pear(*words, "--cfg", "job")
        assert (said.code, said.err) == (0, ""), line


def test_an_argument_of_the_backbone_needs_no_plus_sign(pear):
    timm = ("backbone=timm", "backbone.name=vit_tiny_patch16_224", "--cfg", "job", "--package=backbone.args")
    assert pear("run", *timm, "backbone.args.img_size=16").out.splitlines()[1:] == ["img_size: 16"]
    said = pear("run", "backbone.args.depth=3", *timm, "backbone.args={img_size: 16, num_heads: 2}")
    assert said.out.splitlines()[1:] == ["depth: 3", "img_size: 16", "num_heads: 2"]
    said = pear("run", *timm[:2], "backbone.args.depth=3,4", "hydra/job_logging=none")
    assert "backbone.args.depth=3,4 has several values; add -m" in said.err


def test_an_argument_that_the_backbone_does_not_have_is_told_by_timm(pear):
    said = pear("sites", "backbone.args.detph=3")
    assert said.code == 1
    assert "unexpected keyword argument 'detph'" in said.err


@pytest.mark.parametrize("phase", ["dense", "shared"])
def test_run_refuses_a_phase(pear, quiet, phase):
    said = pear("run", *quiet, f"phase={phase}")
    assert said.code == 1
    assert "leave phase out" in said.err


@pytest.mark.parametrize("command", ["score", "prune-share", "checkpoint"])
def test_a_method_without_adapters_has_nothing_to_score_or_share(pear, quiet, command):
    said = pear(command, *quiet, "method=linear")
    assert said.code == 1
    assert "no adapters" in said.err


def test_a_method_without_adapters_has_no_second_phase(pear, quiet):
    said = pear("train", *quiet, "method=linear", "phase=shared")
    assert said.code == 1
    assert said.err == "pear train: phase=shared: LinearProbe has no adapters to share\n"


def test_a_missing_input_names_the_command_that_makes_it(pear, quiet):
    said = pear("eval", "prune.ratio=0.25", *quiet)
    assert said.code == 1
    assert "run: pear run prune.ratio=0.25" in said.err


def test_the_command_that_makes_a_missing_input_works_when_pasted(pear, quiet):
    said = pear("score", *quiet, "-cd", "../" * 9 + str(CONFIGS), *TINY, "dataset.name='digits'")
    line = said.err.partition("run: ")[2]
    assert f"--config-dir={CONFIGS}" in line
    made = pear(*shlex.split(line)[1:], *quiet, "--quiet")
    assert (made.code, made.err) == (0, "")
    assert Path(made.out.strip()).parent.name == "train"


def test_quiet_leaves_nothing_on_stderr_but_errors(pear):
    said = pear("run", *FLAGS, *TINY, "-q")
    assert (said.code, said.err) == (0, "")
    assert Path(said.out.strip()).parent.name == "eval"
    assert pear("run", *FLAGS, *TINY, "-q", "-m", "seed=0,-1").err.count("\n") == 3  # a table


def test_a_single_run_ends_with_its_share_map_and_its_table_on_stderr(pear, quiet):
    said = pear("run", *quiet, *FLAGS, *TINY)
    parts = ("stage ", "eval ", "stages: 6 computed in", "block attn.q", "model ", "sharing saves")
    places = [said.err.index(f"\n{part}") for part in parts]
    assert places == sorted(places)
    assert "block" not in said.out
    again = pear("run", *quiet, *FLAGS, *TINY, "-m", "seed=0")
    assert "accuracy %" in again.err


def test_choosing_on_val200_trains_on_the_other_800(pear, quiet):
    said = pear("train", *quiet, *FLAGS, *TINY, "select=val")
    manifest = json.loads(Path(said.out.strip(), "manifest.json").read_text())
    assert manifest["config"]["dataset"]["train_split"] == "train800"
    refused = pear("train", *quiet, *FLAGS, *TINY, "select=val", "dataset.train_split=train800val200")
    assert "select=val chooses on val200" in refused.err


def test_sites_lists_the_slots_of_a_backbone(pear):
    said = pear("sites", "backbone.args.depth=3")
    assert "attn.q\t3\t128\t128" in said.out.splitlines()
    assert "attn.q\t4\t16\t16" in pear("sites", *FLAGS, "backbone=tiny").out.splitlines()
    assert pear("sites", "backbone=timmm").err.startswith(
        'pear sites: no backbone "timmm"; did you mean "timm"?'
    )


@pytest.mark.parametrize("outputs", ["mkdir", "touch"])
def test_the_evaluation_of_a_model_leaves_nothing_and_tells_the_users_overrides_only(
    pear, finished, tmp_path, outputs
):
    getattr(tmp_path / "outputs", outputs)()
    said = pear(
        "eval", str(finished.made["eval"].path), "dataset=digits", "runtime.threads=1", "-q", "--json"
    )
    assert (said.code, said.err) == (0, "")
    assert json.loads(said.out)["overrides"] == ["dataset=digits", "runtime.threads=1"]
    assert list(tmp_path.rglob("*")) == [tmp_path / "outputs"]


@pytest.mark.parametrize("words", [["show"], ["export", "abcd"], ["gc", "--older-than=soon"]])
def test_wrong_usage_is_one_line_and_exits_with_2(pear, words):
    said = pear(*words)
    assert said.code == 2
    assert said.err.startswith(f"pear {words[0]}: ")
    assert len(said.err.splitlines()) == 1
