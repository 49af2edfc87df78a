"""Imports go down the layers only, and each library stays in its room."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "pear_cli"

# Top to bottom. A module imports from its own layer or one further down; the leaves are open to all.
LAYERS = [
    {"cli", "__main__"},
    {"hydra_app"},
    {"jobs"},
    {"audit", "stages", "report", "export", "predict", "api", "planning", "estimate"},
    {"accounting", "merging"},
    {"model"},
    {"description"},
    {"experiment", "normal"},
    {"knowledge"},
    {"sharing"},
    {"pruning", "masking"},
    {"scoring"},
    {"engine"},
    {"devices"},
    {"batches", "noise"},
    {"data", "adapters"},
    {"sites", "channels", "widths"},
    {"backbone"},
    {"batch_norm", "weightfile"},
    {"pretrained"},
]
LEAVES = {
    "",
    "artifact",
    "canonical",
    "choices",
    "config",
    "draft",
    "environment",
    "flags",
    "nodes",
    "errors",
    "hashes",
    "parallel",
    "processes",
    "runtime",
    "housekeeping",
    "progress",
    "step",
    "store",
    "streams",
    "sweeps",
    "tensorfile",
    "tracking",
}
ROOMS = {
    "typer": {"cli"},
    "hydra": {"hydra_app", "jobs"},
    "omegaconf": {"hydra_app", "jobs", "config", "experiment"},
    "rich": {"cli", "report", "progress"},
    "accelerate": {"hydra_app", "processes", "tracking"},
    "timm": {"backbone", "pretrained", "sites", "data", "weightfile"},
    "torchvision": {"data"},
    "jinja2": {"report"},
    "vl_convert": {"report"},
}


def imports():
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).with_suffix("").parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                module = node.module or ""
                names = (
                    [f"{module}.{alias.name}" for alias in node.names] if module == "pear_cli" else [module]
                )
            else:
                continue
            for name in names:
                yield room.replace("__init__", ""), name, f"{path.name}:{node.lineno}"


def layer(room):
    return next((index for index, rooms in enumerate(LAYERS) if room in rooms), None)


def test_every_module_has_its_layer():
    rooms = {
        path.relative_to(PACKAGE).with_suffix("").parts[0].replace("__init__", "")
        for path in PACKAGE.rglob("*.py")
    }
    assert not {room for room in rooms if layer(room) is None and room not in LEAVES}


def test_imports_go_down():
    wrong = []
    for room, name, where in imports():
        if not name.startswith("pear_cli.") or room == "":
            continue
        target = name.split(".")[1]
        if target in LEAVES or target == room:
            continue
        if room in LEAVES or layer(target) < layer(room):
            wrong.append(f"{where}: {room} imports {target}")
    assert not wrong


def test_each_library_stays_in_its_room():
    wrong = [
        f"{where}: {name}"
        for room, name, where in imports()
        if name.split(".")[0] in ROOMS and room not in ROOMS[name.split(".")[0]]
    ]
    assert not wrong
