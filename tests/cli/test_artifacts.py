"""The commands that look after artifacts, and `pear eval` of a model that left its store."""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from pear_cli.store.store import Store

QUICK = ("dataset=digits", "runtime.threads=1", "-q")


@pytest.fixture
def copy(finished, tmp_path):
    """A store of its own with the finished experiment."""
    shutil.copytree(finished.store.root, tmp_path / "store")
    return Store(tmp_path / "store")


@pytest.fixture
def exported(pear, finished, tmp_path):
    """An exported file in the folder where pear is started."""
    store = f"--store={finished.store.root}"
    assert pear("export", finished.made["eval"].key, "--out=digits.safetensors", store).code == 0
    return tmp_path / "digits.safetensors"


@pytest.fixture
def closed_stdout(monkeypatch):
    """A stdout that nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        yield
        monkeypatch.undo()


def break_manifest(artifact):
    (artifact.path / "manifest.json").write_text("{")


def test_the_store_of_the_commands_is_the_store_of_the_config():
    from omegaconf import OmegaConf

    from pear_cli.cli.options import STORE
    from pear_cli.config.presets import config_dir

    assert OmegaConf.load(config_dir() / "runtime" / "default.yaml").store == str(STORE)


@pytest.mark.parametrize("spelling", ["--store={}", "--store {}", "runtime.store={}"])
def test_the_store_is_named_as_an_option_or_as_a_setting(pear, finished, spelling):
    store = spelling.format(finished.store.root).split()
    key = finished.made["eval"].key
    assert json.loads(pear("ls", "stage=eval", "--json", *store).out)["key"] == key
    assert key in pear("show", *store, key[:8]).out
    assert pear("gc", "--dry-run", *store).code == 0
    assert pear("export", key, *store, "--out=x.safetensors").code == 0
    assert "no artifact" in pear("rm", "ffffffff", *store).err
    assert "no artifact" in pear("predict", "ffffffff", "x.png", *store).err


def test_an_input_of_others_is_only_removed_with_them(pear, copy, finished):
    key, store = finished.made["train"].key, f"--store={copy.root}"
    kept = pear("rm", key, store)
    assert kept.code == 1
    assert "pear rm --recursive" in kept.err
    asked = pear("rm", key, store, "--recursive")
    assert (asked.code, asked.out) == (1, "")
    assert (
        "5 artifacts were made from it (see above); nothing was removed. To remove them: --yes" in asked.err
    )
    assert len(pear("rm", key, store, "--recursive", "--yes").out.splitlines()) == 6
    assert pear("ls", store).err.endswith(" yet; pear run makes some\n")


def test_damaged_manifests_are_listed_in_one_line_and_can_be_removed(pear, copy, finished):
    store = f"runtime.store={copy.root}"
    for step in ("score", "eval"):
        break_manifest(copy.get(finished.made[step].stage, finished.made[step].key))
    said = pear("ls", store, "--json")
    names = [f"{finished.made[step].stage}/{finished.made[step].key}" for step in ("eval", "score")]
    assert said.err == f"pear ls: damaged manifests (pear rm, or pear gc --verify): {', '.join(names)}\n"
    assert len(said.out.splitlines()) == 4
    key = finished.made["eval"].key
    assert pear("rm", key[:10], store).out == f"{copy.path('eval', key)}\n"
    assert not copy.path("eval", key).exists()


def test_gc_verify_sets_damaged_artifacts_aside_unless_it_is_a_dry_run(pear, copy, finished):
    damaged = copy.get("eval", finished.made["eval"].key).path
    (damaged / "predictions.safetensors").write_bytes(b"x")
    for words, exists, done in ((["--dry-run"], True, "would be set aside"), ([], False, "set aside")):
        said = pear("gc", "--verify", *words, f"--store={copy.root}")
        assert (said.code, damaged.exists()) == (1, exists)
        assert re.fullmatch(rf"corrupt\t\d+\t{damaged}\n", said.out)
        assert f"damaged artifacts: 1, {done} in {copy.root}/.quarantine till" in said.err
    assert pear("gc", "--verify", f"--store={copy.root}").code == 0


def test_gc_counts_lock_files_instead_of_listing_them(pear, copy):
    shutil.rmtree(copy.root / ".locks", ignore_errors=True)
    (copy.root / ".locks").mkdir()
    for digit in "ab":
        copy.lock_path("train", digit * 32).touch()
    said = pear("gc", f"--store={copy.root}")
    assert (said.out, said.err) == ("", "freed 0 bytes in 0 items and 2 unused lock files\n")


def test_gc_and_rm_name_the_artifacts_of_a_newer_pear_that_they_left_alone(pear, copy, finished):
    newer = copy.get("eval", finished.made["eval"].key).path
    (newer / "manifest.json").write_text('{"schema": 99}')
    store = f"--store={copy.root}"
    for words in (["gc", "--verify"], ["gc", "--verify", "--orphans"], ["rm", finished.made["adapt"].key]):
        said = pear(*words, store)
        assert said.code == ("--verify" in words)
        assert said.err.count(f"pear {words[0]}: skipped: {newer} has schema 99, ") == 1
    said = pear("rm", finished.made["checkpoint"].key, newer.name, store)
    assert (said.code, len(said.out.splitlines()), said.err) == (0, 2, "")


def test_a_filter_that_nothing_passes_says_so_beside_the_results(pear, finished):
    store = f"--store={finished.store.root}"
    for words in ([], ["--json"]):
        said = pear("ls", "stage=eval", "prune.ratio>0.9", store, *words)
        assert said == (0, "", "pear ls: no artifacts match stage=eval prune.ratio>0.9\n")


@pytest.mark.parametrize(
    "words", ["ls", "show abcd", "rm abcd", "gc", "predict abcd x.png", "export abcd --out=x"]
)
def test_a_store_that_is_named_but_not_there_is_an_error(pear, words):
    for store in ("--store=nowhere", "runtime.store=nowhere"):
        said = pear(*words.split(), store)
        assert (said.code, said.out) == (1, "")
        assert said.err.endswith(": there is no folder nowhere; check --store or runtime.store\n")


def test_the_default_store_may_be_yet_to_come(pear):
    assert pear("ls") == (0, "", "pear ls: no artifacts in outputs/store yet; pear run makes some\n")
    assert pear("gc").code == 0


def test_every_example_in_the_help_works(pear, copy, finished, tmp_path):
    import typer

    from pear_cli.cli.app import app

    (tmp_path / "photos").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "photos" / "a.png")
    key, store = finished.made["adapt"].key, f"--store={copy.root}"
    for name in ("digits", "birds", "cars", "dogs"):
        assert pear("export", key, store, f"--out={name}.safetensors").code == 0
    for name in ("sites", "ls", "show", "predict", "gc", "export"):
        lines = typer.main.get_command(app).commands[name].help.splitlines()
        examples = [line.partition("| ")[2] or line for line in lines if f"pear {name}" in line]
        assert examples
        for line in examples:
            words = [key if w == "3f2a" else w for w in shlex.split(line)[1:]]
            words = ["photos" if word == "-" else word for word in words]
            words = words[: words.index(">")] if ">" in words else words
            single = name == "export" and words[-1].endswith((".safetensors", "--force"))
            out = ["--out=again.safetensors"] if single else []
            said = pear(*words, *out, *([] if name == "sites" else [store]))
            (tmp_path / "again.safetensors").unlink(missing_ok=True)
            assert said.code == 0, (line, said.err)
    assert pear("rm", finished.made["eval"].key, store).code == 0
    assert pear("rm", key, "--recursive", "--yes", store).code == 0


def test_export_writes_one_file_and_prints_its_name(pear, finished, tmp_path):
    words = (finished.made["eval"].key, "--out=x.safetensors", f"--store={finished.store.root}")
    assert pear("export", *words, "--format", "safetensors").out == "x.safetensors\n"
    assert (tmp_path / "x.safetensors").is_file()
    assert pear("export", *words).code == 1


def test_an_unknown_format_is_told_which_there_are(pear):
    said = pear("export", "3f2a", "--format=safetensor", "--out=x.safetensors")
    assert said.code == 2
    assert said.err.endswith(
        'no format "safetensor"; did you mean "safetensors"? formats: safetensors, onnx, peft\n'
    )


def test_show_describes_an_exported_file_without_its_store(pear, finished, exported):
    key = finished.made["adapt"].key
    said = pear("show", exported.name)
    assert said.out.startswith(f"exported train {key}\n")
    described = json.loads(pear("show", exported.name, "--json").out)
    assert described["origin"]["key"] == key
    assert described["description"]["size"] == 16


def test_eval_of_an_exported_file_gives_its_path_or_its_metrics(pear, finished, exported, quiet):
    expected = finished.made["eval"].manifest["metrics"]["accuracy"]
    said = pear("eval", exported.name, *QUICK)
    assert (said.code, said.out, said.err) == (0, f"{exported}\n", "")
    (record,) = map(json.loads, pear("eval", "-q", *QUICK[:2], str(exported), "--json").out.splitlines())
    assert record["metrics"]["accuracy"] == expected
    shown = pear("eval", exported.name, *QUICK[:2], *quiet).err
    assert shown == f"accuracy {100 * expected:.2f}% on 797 images, test of digits\n"


def test_eval_of_a_file_refuses_images_that_are_prepared_otherwise(pear, exported):
    said = pear("eval", exported.name, *QUICK, "dataset.normalization=imagenet")
    assert (said.code, len(said.err.splitlines())) == (1, 1)
    assert "was trained with dataset.normalization=backbone, not imagenet; leave it out" in said.err
    assert pear("eval", exported.name, *QUICK, "dataset.normalization=half").code == 0  # the same numbers


def test_eval_takes_an_artifact_and_a_sweep_of_datasets_too(pear, finished):
    key, store = finished.made["adapt"].key, f"runtime.store={finished.store.root}"
    said = pear("eval", key[:9], store, *QUICK)
    assert (said.code, said.out) == (0, f"{key[:9]}\n")
    said = pear("eval", "-m", key[:9], store, "dataset=digits,shapes_count", *QUICK[1:])
    assert (said.code, said.out) == (1, f"{key[:9]}\n")
    assert "other classes" in said.err


def test_a_file_with_a_strange_name_is_evaluated_all_the_same(pear, exported, tmp_path):
    strange = tmp_path / "it's a\\ {n,e}w\\'.safetensors"
    exported.rename(strange)
    assert pear("eval", strange.name, *QUICK).out == f"{strange}\n"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere.safetensors"], 1, "nowhere.safetensors: no such file"),
        (["a.safetensors", "b.safetensors"], 2, "a.safetensors and b.safetensors: one model at a time"),
        (["accuracy"], 2, '"accuracy" is not an override'),
        (["--weights=x"], 2, "--weights goes with a model"),
        (["--wieghts=x"], 2, "no flag --wieghts"),
        (["abcdef0123"], 1, 'has no artifact "abcdef0123"'),
    ],
)
def test_eval_tells_a_model_from_overrides_and_both_from_mistakes(pear, words, code, message):
    said = pear("eval", *QUICK, *words)
    assert (said.code, said.out) == (code, "")
    assert message in said.err
    assert len(said.err.splitlines()) == 1


@pytest.mark.usefixtures("closed_stdout")
def test_a_reader_who_goes_away_ends_a_command_quietly(finished, tmp_path, capfd):
    from pear_cli.cli.app import perform

    store, key = f"--store={finished.store.root}", finished.made["eval"].key
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    for words in (["ls"], ["ls", "--json"], ["show", key], ["predict", key, str(tmp_path / "a.png")]):
        assert perform([*words, store]) == 0
    assert capfd.readouterr().err == ""


def test_head_ends_a_listing_without_a_traceback(finished):
    read, write = os.pipe()
    os.close(read)
    words = [sys.executable, "-m", "pear_cli", "ls", f"runtime.store={finished.store.root}"]
    done = subprocess.run(words, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_mistake_of_ours_says_how_to_see_where(pear, monkeypatch):
    def fail(*args):
        raise ZeroDivisionError("our own bug")

    monkeypatch.setattr("pear_cli.store.store.Store.folders", fail)
    said = pear("ls")
    assert (said.code, said.out) == (1, "")
    assert said.err == "pear ls: ZeroDivisionError: our own bug; PEAR_TRACEBACK=1 shows where\n"


def completed(folder, *words):
    """What bash is offered for the last word, and the heavy libraries that this imports."""
    code = (
        "import sys\nfrom pear_cli.cli.app import app\n"
        "try:\n    app(prog_name='pear')\nfinally:\n"
        "    print([name for name in ('torch', 'timm') if name in sys.modules], file=sys.stderr)"
    )
    line = ["pear", *words]
    variables = {
        "_PEAR_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(line),
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, env=os.environ | variables
    )
    return done.stdout.split(), done.stderr


@pytest.mark.parametrize("command", [["show"], ["rm"], ["export"], ["predict"], ["report", "diff"]], ids=str)
def test_keys_of_the_store_are_completed_without_heavy_libraries(finished, tmp_path, command):
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "store").symlink_to(finished.store.root)
    key = finished.made["score"].key
    offered, said = completed(tmp_path, *command, key[:3])
    assert key[:12] in offered
    assert all(each.startswith(key[:3]) for each in offered)
    assert said.strip() == "[]"


def test_a_stage_and_files_are_completed_too(finished, tmp_path):
    (tmp_path / "digits.safetensors").touch()
    store = f"--store={finished.store.root}"
    key = finished.made["eval"].key
    assert completed(tmp_path, "show", store, "eval/")[0] == [f"eval/{key[:12]}"]
    assert completed(tmp_path, "show", store, "digi")[0] == ["digits.safetensors"]


def test_artifacts_of_an_older_pear_are_one_line_and_go_on_request(pear, copy, finished):
    for name in ("adapt", "eval"):
        path = copy.get(finished.made[name].stage, finished.made[name].key).path / "manifest.json"
        path.write_text(path.read_text().replace('"schema": 2', '"schema": 1', 1))
        (path.parent / "manifest.sha256").unlink()
    store = f"--store={copy.root}"
    for command in ("ls", "report"):
        said = pear(command, store)
        assert said.err.count("2 artifacts of an older pear are not read") == 1
        assert "damaged" not in said.err
    said = pear("gc", "--old-schema", "--dry-run", store)
    assert said.out.count("schema\t") == 2
    assert pear("gc", "--old-schema", store).code == 1
    assert pear("gc", "--old-schema", "--yes", store).out.count("schema\t") == 2
    assert "older pear" not in pear("ls", store).err


@pytest.mark.parametrize("days", ["-1", "nan", "inf", "1e400", "-0.001", "40000"])
def test_an_age_out_of_range_removes_nothing(pear, copy, days):
    said = pear("gc", f"--older-than={days}", "--yes", f"--store={copy.root}")
    assert (said.code, said.out) == (2, "")
    assert "is out of range: 0 to 36500 days" in said.err
    assert len(list(copy.artifacts())) == 6


def test_gc_lists_what_is_complete_and_asks_before_it_goes(pear, copy):
    store = f"--store={copy.root}"
    asked = pear("gc", "--older-than=0", store)
    assert (asked.code, asked.out) == (1, "")
    assert asked.err.count("old  ") == 6
    assert "6 complete artifacts would go (see above); nothing was removed" in asked.err
    assert len(list(copy.artifacts())) == 6
    assert pear("gc", "--older-than=0", "--yes", store).out.count("old\t") == 6
    assert not list(copy.artifacts())


def test_gc_asks_on_a_terminal(monkeypatch):
    import typer

    from pear_cli.cli import options

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen, asked = Terminal(), []
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr(typer, "confirm", lambda text, **_: asked.append(text))
    options.confirm("gc", ["old  3  x"], "1 complete artifact would go", False)
    assert (screen.getvalue(), asked) == (
        "old  3  x\n",
        ["pear gc: 1 complete artifact would go; remove them?"],
    )
    options.confirm("gc", ["old  3  x"], "1 complete artifact would go", True)
    assert len(asked) == 1


def test_a_lost_seal_and_a_lost_manifest_are_damage_that_every_command_finds(pear, copy, finished):
    store = f"--store={copy.root}"
    manifest = copy.path("eval", finished.made["eval"].key) / "manifest.json"
    edited = manifest.read_text().replace('"accuracy": 0', '"accuracy": 1')
    manifest.write_text(edited)
    (manifest.parent / "manifest.sha256").unlink()
    adapted = copy.path("train", finished.made["adapt"].key)
    (adapted / "manifest.json").unlink()
    said = pear("ls", store)
    assert all(key in said.err for key in (finished.made["eval"].key, finished.made["adapt"].key))
    for key in (finished.made["eval"].key, finished.made["adapt"].key):
        shown = pear("show", key, store)
        assert (shown.code, shown.out) == (1, "")
        assert "is missing; remove it and run again: pear rm" in shown.err
    swept = pear("gc", "--verify", store)
    assert swept.code == 1
    assert swept.out.count("corrupt\t") == 2
    assert pear("gc", store).out.count("quarantined\t") == 2
    assert len(list(copy.folders())) == 4


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_gc_that_could_not_check_an_artifact_exits_with_1(pear, copy, finished):
    file = copy.path("train", finished.made["train"].key) / "adapters.safetensors"
    file.chmod(0)
    said = pear("gc", "--verify", f"--store={copy.root}")
    assert said.code == 1
    assert "no permission to read it" in said.err


@pytest.mark.parametrize("words", [["ls"], ["gc", "--dry-run"], ["show", "3f2a"], ["rm", "3f2a"], ["sweeps"]])
@pytest.mark.parametrize("empty", ["--store=", "runtime.store="])
def test_an_empty_store_is_not_the_current_folder(pear, words, empty):
    said = pear(*words, empty)
    assert (said.code, said.out) == (2, "")
    assert "it is empty: give the folder a name" in said.err


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("command", ["", "data", "sweeps", "report"])
def test_help_is_never_cut_off(pear, command, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    lines = pear(*command.split(), "--help").out.splitlines()
    assert not [line for line in lines if line.endswith(("...", "…")) and "Usage:" not in line]


def test_ls_tells_seeds_and_how_many_keys_a_line_has(pear, finished):
    title, *rows = pear("ls", f"--store={finished.store.root}").out.splitlines()
    assert "seed" in title.split()
    assert rows


def test_an_exported_file_names_its_dataset_accuracy_and_epochs(pear, finished):
    store = f"--store={finished.store.root}"
    assert pear("export", finished.made["adapt"].key, store, "--out=x.safetensors").code == 0
    said = pear("show", "x.safetensors").out
    accuracy = finished.made["eval"].manifest["metrics"]["accuracy"]
    assert "digits (10 classes: 0, 1, 2, …)" in said
    assert f"accuracy {100 * accuracy:.2f} %" in said
    assert "epochs 4" in said
    assert "method.rank" not in said
    assert "seconds" in pear("show", "x.safetensors", "--json").out
