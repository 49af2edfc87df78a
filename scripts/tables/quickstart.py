"""The experiments of scripts/quickstart.sh, measured into docs/results/quickstart.json (see cells.py)."""

from cells import Cells, fresh, pear, record

TASKS = ("mnist5k", "shapes_orientation")
MODELS = {
    "dense": "dense",
    "prune only": "prune_only",
    "prune + share": "prune_share",
    "prune + share + knowledge": "pear",
}


def main() -> None:
    cells = Cells("quickstart")
    with fresh() as store:
        for task in TASKS:
            measure(cells, task, f"runtime.store={store}")


def measure(cells: Cells, task: str, store: str) -> None:
    """Run the experiments of a task that are missing or out of date."""
    for model, experiment in MODELS.items():
        cell, words = {"task": task, "model": model}, words_of(task, experiment)
        if not cells.is_current(cell, words):
            cells.add([record(cell, words, pear("run", *words, store)[0])])


def words_of(task: str, experiment: str) -> list[str]:
    return [f"dataset={task}", f"experiment={experiment}", "optim.epochs=6"]


if __name__ == "__main__":
    main()
