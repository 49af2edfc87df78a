"""CPU time of a training update with and without the live display, in turn, on a terminal of its own.

    python scripts/bench/live.py [--repeats 50] [--batch 16] [--depth 12]

Prints what the drawings alone take, then medians, and the median of the differences between neighbours. CPU
time is that of all threads of the process: all of the display's is counted, though most of it passes while
another core trains.
"""

import argparse
import os
import pty
import statistics
import sys
import threading
import time

import torch
from rich.live import Live

from pear_cli.adapters.lora import LoRA
from pear_cli.config.node import node
from pear_cli.config.presets import presets_of
from pear_cli.config.settings import Backbone, Optim
from pear_cli.data.images import Images
from pear_cli.model import models
from pear_cli.system import progress
from pear_cli.system.progress.board import RATE, Board
from pear_cli.system.progress.rows import Doing, Ticker
from pear_cli.training import engine
from pear_cli.training.batches import Batches
from pear_cli.training.engine import Trainer

UPDATES = 30
DRAWINGS = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--depth", type=int, default=12)
    options = parser.parse_args()
    trainer = _trainer(options.batch, options.depth)
    out = os.dup(1)
    _terminal()
    drawing = _drawing()
    share = 100 * drawing * RATE
    os.write(out, f"a drawing: {1000 * drawing:.3f} ms, {RATE} a second: {share:.2f}%\n".encode())
    times: dict[bool, list[float]] = {False: [], True: []}
    for repeat in range(options.repeats + 2):
        for live in (repeat % 2 == 0, repeat % 2 == 1):
            seconds = _update(trainer, repeat, live)
            if repeat >= 2:
                times[live].append(seconds)
    changes = [100 * (live / alone - 1) for alone, live in zip(times[False], times[True], strict=True)]
    low, middle, high = statistics.quantiles(changes, n=4)
    alone, live = (1000 * statistics.median(times[shown]) for shown in (False, True))
    report = f"batch {options.batch}: {alone:.2f} ms an update, {live:.2f} ms with the live display: "
    os.write(out, f"{report}{middle:+.2f}% (quartiles {low:+.2f}%, {high:+.2f}%)\n".encode())


def _drawing() -> float:
    """CPU seconds of drawing two lines."""
    row = Ticker("train", 10, print, live=True, images=1000)
    row.step("loss 0.231 accuracy 0.934")
    board = Board(progress.console)
    board.rows = [Doing("run", lambda: "stage 1 of 6", time.monotonic(), True), row]
    with Live(board, console=progress.console, auto_refresh=False, transient=True) as drawn:
        start = time.process_time()
        for _ in range(DRAWINGS):
            drawn.refresh()
        return (time.process_time() - start) / DRAWINGS


def _update(trainer: Trainer, epoch: int, live: bool) -> float:
    """CPU seconds of an update."""
    start = time.process_time()
    if not live:
        trainer.epoch(epoch)
        return (time.process_time() - start) / UPDATES
    images = len(trainer.train)
    whole = progress.doing("run", lambda: "stage 1 of 6", stays=True)
    with whole, progress.ticker("train", 10, images=images) as row:

        def note(measured: engine.Measured) -> str:
            return "loss {train_loss:.3f} accuracy {train_accuracy:.3f}".format(**measured())

        trainer.epoch(epoch, lambda seen, measured: row.within(seen / images, lambda: note(measured)))
    return (time.process_time() - start) / UPDATES


def _trainer(batch: int, depth: int) -> Trainer:
    args = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": depth, "num_heads": 4}
    backbone = Backbone("vit_tiny_patch16_224", False, None, 0, 0.0, None, None, args)
    method = LoRA(lr=1e-3, rank=8, scale=1, dropout=0.1, slots=("attn.q", "attn.v"))
    model = models.create(backbone, method, 10, 0)
    pixels = torch.randint(0, 256, (batch * UPDATES, 32, 32, 3), dtype=torch.uint8).numpy()
    labels = (torch.arange(batch * UPDATES) % 10).numpy()
    images = Images(pixels, labels, tuple(map(str, range(10))))
    settings = presets_of("optim")["default"] | {"batch_size": batch, "lr": 1e-3, "adapt_epochs": 10}
    optim = node(settings, Optim, "optim")
    return Trainer(
        model=model,
        trained=models.trained(model),
        train=Batches(images, ((0.5,) * 3, (0.5,) * 3), torch.device("cpu")),
        optim=optim,
        schedule=engine.Schedule(optim, updates=1000 * UPDATES),
        where=engine.Device(torch.device("cpu"), torch.float32),
        seed=0,
        phase="dense",
        served={},
    )


def _terminal() -> None:
    """Make stderr a terminal that somebody reads."""
    device, inside = pty.openpty()
    os.dup2(inside, 2)
    os.environ["TERM"] = "xterm-256color"
    threading.Thread(target=_read, args=(device,), daemon=True).start()
    assert sys.stderr.isatty()
    assert progress.is_live()


def _read(device: int) -> None:
    while os.read(device, 65536):
        pass


if __name__ == "__main__":
    main()
