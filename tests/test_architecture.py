"""The layout holds: imports go down the wings, no files form a circle, each library stays in its wing."""

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parent.parent / "pear_cli"

# Top to bottom: a wing imports from the rows below its own.
WINGS = (
    ("__main__",),
    ("cli",),
    ("launch",),
    ("report", "audit"),
    ("api",),
    ("stages", "export"),
    ("experiment", "model"),
    ("pruning",),
    ("scoring",),
    ("adapters", "training"),
    ("data", "backbone"),
    ("config",),
    ("store",),
    ("system",),
    ("errors",),
)
ROW = {wing: row for row, wings in enumerate(WINGS) for wing in wings}
LIBRARIES = {
    "typer": {"cli"},
    "hydra": {"launch"},
    "omegaconf": {"launch", "config", "experiment"},
    "rich": {"cli", "report", "system"},
    "accelerate": {"launch", "system", "training"},
    "timm": {"backbone", "data"},
    "torchvision": {"data"},
    "jinja2": {"report"},
    "vl_convert": {"report"},
}


def name_of(path: Path) -> str:
    parts = (PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in MODULES.items()}


class Import(NamedTuple):
    """One imported module, wherever in the file it stands."""

    file: str
    line: int
    target: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.target}"


def imports() -> Iterator[Import]:
    """Every import, also inside functions and under TYPE_CHECKING."""
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (Import(file, node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{file}:{node.lineno}: a relative import"
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    yield Import(file, node.lineno, whole if whole in MODULES else str(node.module))


def wing_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


OURS = [found for found in imports() if found.target in MODULES and found.file != PACKAGE.name]


def test_every_module_has_its_wing():
    assert {wing_of(module) for module in MODULES} - {""} == set(ROW)


def test_imports_go_down_the_wings():
    wrong = [
        str(found)
        for found in OURS
        if wing_of(found.target) != wing_of(found.file)
        and ROW.get(wing_of(found.target), len(WINGS)) <= ROW[wing_of(found.file)]
    ]
    assert not wrong


def test_no_files_form_a_circle():
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for found in OURS:
        graph[found.file].add(found.target)
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the files


def test_each_library_stays_in_its_wing():
    wrong = [
        str(found)
        for found in imports()
        if (library := found.target.split(".")[0]) in LIBRARIES
        and wing_of(found.file) not in LIBRARIES[library]
    ]
    assert not wrong


LATER = {"cli": 35, "launch": 9, "a package's face": 13}
"""Imports inside functions: they put off what is slow to load. They may become fewer, never more."""


def test_a_file_says_at_its_top_what_it_needs():
    inside = {
        (file, node.lineno)
        for file, tree in TREES.items()
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for statement in function.body
        for node in ast.walk(statement)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    faces = {file: "a package's face" for file, path in MODULES.items() if path.name == "__init__.py"}
    found = Counter(faces.get(file, wing_of(file)) for file, _ in inside)
    assert not {place: count for place, count in found.items() if count > LATER.get(place, 0)}


def test_rooms_are_small_and_named_apart():
    entries = [path for path in PACKAGE.iterdir() if path.suffix == ".py" or any(path.rglob("*.py"))]
    assert len([path for path in entries if path.name != "__pycache__"]) <= 22
    lines = {path: len(path.read_text("utf-8").splitlines()) for path in MODULES.values()}
    assert not {path: count for path, count in lines.items() if count > 300}
    assert not {path: count for path, count in lines.items() if path.name == "__init__.py" and count > 40}
    names = Counter((wing_of(module), path.name) for module, path in MODULES.items())
    assert not [name for name, times in names.items() if times > 1 and name[1] != "__init__.py"]
