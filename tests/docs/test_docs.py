"""What README and docs show is tried: each command, each Python block, each output.

A fenced block says what it is. `bash` has commands, which are run in the order of the page, in an empty
folder, as they stand; `console` has commands and what they print; `python` is run; a block with a title is a
file. A comment before a block says why it is not run (`<!-- not run: … -->`), or only composed and validated
(`<!-- composed only: … -->`), or which package it needs (`<!-- needs: … -->`). All that differs from a user's
run is in conf/: the bundled backbone is a tiny one, an epoch has few batches, and one epoch is enough; and
Python has random weights instead of pretrained ones.
"""

import os
import re
import runpy
import shlex
import shutil
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from pear_cli import adapters
from pear_cli.launch import launch

ROOT = Path(__file__).parent.parent.parent
TINY = Path(__file__).parent.parent / "configs" / "backbone" / "tiny.yaml"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
LANGUAGES = ("bash", "console", "python", "yaml", "text")
BLOCK = re.compile(
    r"(?:^ *<!-- (?P<mark>[^>]*) -->\n+)?^(?P<indent> *)```(?P<language>\w*)"
    r"(?: title=\"(?P<title>[^\"\n]*)\")?\n(?P<text>.*?)^(?P=indent)```$",
    re.M | re.S,
)
NUMBER = re.compile(r"\d[\d.,]*(?:e[-+]\d+)?")
OPTIONS = re.compile(r"--json|--quiet|-q|--dry-run|--keep-going=\w+")


class Block(NamedTuple):
    """A fenced block: the comment before it, and what it says of itself."""

    mark: str
    language: str
    title: str
    text: str

    @property
    def commands(self) -> list[str]:
        prompt = "$ " if self.language == "console" else ""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line[len(prompt) :] for line in lines if line.startswith(prompt) and line.strip()]

    @property
    def outputs(self) -> list[str]:
        """What each command of a console printed."""
        return [part.partition("\n")[2] for part in re.split(r"^\$ ", self.text, flags=re.M)[1:]]


def blocks(page: Path) -> list[Block]:
    found = []
    for match in BLOCK.finditer(page.read_text("utf-8")):
        named = match.groupdict("")
        found.append(Block(named["mark"], named["language"], named["title"], textwrap.dedent(named["text"])))
    return found


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_says_what_it_is_and_every_shell_block_is_run_or_says_why_not(page):
    assert page.read_text("utf-8").count("```") == 2 * len(blocks(page))
    for block in blocks(page):
        assert block.language in LANGUAGES, block.text
        assert re.fullmatch(r"|(not run|composed only|figures|needs): \w.*", block.mark), block.mark
        if block.language in ("bash", "console") and not block.mark.startswith("not run"):
            assert all(line.split()[0] in ("pear", "#") for line in block.commands), block.text


SMALLER = [
    ("backbone/pear_mini", "embed_dim: 16", "embed_dim: 64"),  # the ranks of all presets fit
    ("optim/default", "epochs: 10\n", "epochs: 1\n"),
    ("optim/default", "batch_size: 32\n", "batch_size: 200\n"),
    ("runtime/default", "threads: null\n", "threads: 1\n"),
    ("config", "_logging: stderr", "_logging: none"),  # it would take pytest's handlers
]


class Place:
    """A folder like a user's home and a clone of pear in one, where the blocks of a page are tried."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, pear) -> None:
        self.folder, self.pear, self.patch = folder, pear, patch
        self.names: dict[str, object] = {}
        shutil.copytree(ROOT / "conf", folder / "conf")
        shutil.copy(TINY, folder / "conf" / "backbone" / "pear_mini.yaml")
        for path, old, new in SMALLER:
            self.replace(f"conf/{path}.yaml", old, new)
        for module in [module for name, module in sys.modules.items() if name.startswith(launch.__name__)]:
            if hasattr(module, "config_dir"):
                patch.setattr(module, "config_dir", lambda: folder / "conf")
        patch.setattr(adapters, "__path__", [*adapters.__path__, str(folder / "pear_cli" / "adapters")])
        patch.setenv("HOME", str(folder))
        photographs(folder)

    def replace(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        assert old in path.read_text("utf-8")
        path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")

    def try_out(self, block: Block) -> None:
        if block.title:
            self.write(Path(os.path.expanduser(block.title)), block.text)
        elif block.language == "python":
            text = block.text.replace("pretrained=True", "pretrained=False")  # there is no network
            exec(compile(text, "<docs>", "exec"), self.names)
        elif block.language == "bash":
            for line in block.commands:
                self.carry_out(line, block.mark)
        elif block.language == "console":
            for line, shown in zip(block.commands, block.outputs, strict=True):
                said = self.carry_out(line, block.mark, may_fail=True)
                assert like(shown, said), f"{line}\nprints\n{said}\nnot\n{shown}"

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        if path.name.startswith("test_"):
            tests = runpy.run_path(str(path))
            for name in tests:
                if name.startswith("test_"):
                    tests[name]()

    def carry_out(self, line: str, mark: str, *, may_fail: bool = False) -> str:
        words = [
            os.path.expanduser(word) for word in shlex.split(os.path.expandvars(line), comments=True)[1:]
        ]
        if mark:
            compose(words)
            return ""
        keys = self.keys() if re.search("|".join(KEYS), line) else {}
        said = self.pear(*(keys.get(word, word) for word in words))
        assert may_fail or said.code == 0, f"{line}\n{said.err[-2000:]}"
        return f"{said.out}{said.err}"

    def keys(self) -> dict[str, str]:
        """What the keys of the pages stand for: two evaluations that there are, and a sweep."""
        from pear_cli.store import sweeps

        made = sorted(
            Path("outputs/store/eval").glob("*/manifest.json"), key=lambda path: path.stat().st_mtime_ns
        )
        found = [made[-1].parent.name, made[0].parent.name] if made else []
        return dict(
            zip(KEYS, [*found, *(s.id for s in sweeps.noted(Path("outputs/store"))[-1:])], strict=False)
        )


KEYS = ("3f2a", "99bc", "7d10")


def photographs(home: Path) -> None:
    """$HOME/scans with a damaged image and a double, $HOME/photos and a task of VTAB-1k without."""
    for folder in ("photos", "scans"):
        for split, count in (("train", 20), ("test", 3)):
            for label, animal in enumerate(("cat", "dog")):
                for number in range(count):
                    shade = (10 * number + 5, 120 * label, 99 * (split == "test"))
                    path = home / folder / split / animal / f"{number + 5 * (split == 'test')}.jpg"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.new("RGB", (20, 15), shade).save(path)
    damaged = home / "scans" / "test" / "cat" / "7.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-8])
    shutil.copy(home / "scans" / "train" / "dog" / "12.jpg", home / "scans" / "test" / "dog" / "6.jpg")
    task = home / "vtab-1k" / "dtd"
    shutil.copytree(home / "photos", task / "images")
    for split, part in (("train800val200", "train"), ("test", "test")):
        files = sorted((task / "images" / part).rglob("*.jpg"))
        lines = [f"{path.relative_to(task)} {int('dog' in path.parts)}\n" for path in files]
        (task / f"{split}.txt").write_text("".join(lines))


def compose(words: list[str]) -> None:
    """Compose and validate a command line, of a sweep the first and the last job, without running it."""
    from pear_cli.experiment.read import read
    from pear_cli.launch import jobs, launch
    from pear_cli.launch.composing import compositions, grid, opened, single
    from pear_cli.launch.flags import reorder
    from pear_cli.launch.sweep.multirun import is_multirun

    if words[0] == "data":
        jobs.dataset(launch.composed(words[2:]))
        return
    flags, overrides = reorder([word for word in words[1:] if not OPTIONS.fullmatch(word)])
    overrides = opened(overrides)
    found = grid(flags, overrides)[0] if is_multirun(flags, overrides) else (single(overrides),)
    assert found
    for _, config in compositions(flags, overrides, {found[0], found[-1]}):
        read(config)


def like(shown: str, said: str) -> bool:
    """Whether an output is as it is shown, whatever its numbers and spaces are; … stands for anything."""
    literal = (NUMBER.pattern.join(map(re.escape, NUMBER.split(word))) for word in shown.split())
    words = [".*" if word == "…" else word for word in literal]
    return re.search(" ".join(words), f" {' '.join(said.split())} ") is not None


@pytest.fixture
def place(tmp_path, monkeypatch, pear):
    import torch

    threads = torch.get_num_threads()
    modules = set(sys.modules)
    yield Place(tmp_path, monkeypatch, pear)
    torch.set_num_threads(threads)
    for name in set(sys.modules) - modules:
        if name.startswith("pear_cli.adapters."):
            del sys.modules[name]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning:lightning.*")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning.*", "ignore:.*pin_memory:UserWarning")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name_of)
def test_what_a_page_shows_works(page, place):
    for block in blocks(page):
        kind, _, what = block.mark.partition(": ")
        if kind != "not run" and (kind != "needs" or find_spec(what)):
            place.try_out(block)


LINK = re.compile(r"""(?:\]\(|src=")(?!https?://)([^)#"\s]*)(?:#([\w-]+))?[)"]""")


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get."""
    titles = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent == ROOT], ids=name_of)
def test_the_links_of_pages_outside_of_docs_lead_somewhere(page):
    for target, anchor in LINK.findall(page.read_text("utf-8")):
        found = page.parent / target if target else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_that_a_sentence_names_is_one(page):
    import typer

    from pear_cli.cli.app import app

    known = typer.main.get_command(app).commands
    for command in re.findall(r"`pear ([a-z][a-z-]*)", page.read_text("utf-8")):
        assert command in known, command


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_script_that_a_page_names_is_there(page):
    for script in re.findall(r"\bscripts/[\w./]*\w", page.read_text("utf-8")):
        assert (ROOT / script).exists(), script


@pytest.mark.parametrize("picture", sorted(ROOT.glob("docs/pictures/*")), ids=lambda path: path.name)
def test_a_picture_is_small_and_loads_nothing(picture):
    assert picture.stat().st_size < 300_000
    if picture.suffix == ".svg":
        text = picture.read_text("utf-8").replace("http://www.w3.org/", "")
        assert not re.search(r"https?:|@font-face|@import|<script|<image", text)
        assert str(ROOT) not in text
