"""What does a run cost on top of its training steps, and by which cause? Prints two tables.

    python benchmarks/overhead.py [--rounds 5] [--epochs 2] [--log-every 10]
        [--clock wall] [--device cpu]

The recipe is configs/digits.yaml, whose steps are so short that host work shows. The same model
takes the same steps on the same batches in a plain loop, in a bare Lightning Trainer, and by
`smmix fit` in this process, with W&B offline. In a round, each variant trains once from the start.
A step lasts from its begin to the begin of the next, so its logging and the next batch belong to
it. Each step's median over rounds enters the tables: the mean over steps that are not logged, and
over those that are. The first steps of a run and the last of an epoch are excluded.

On a GPU (`--device cuda`), the host does not wait for the steps, and its own time is measured as
long as it takes longer than the device's.

`--clock cpu` measures CPU time instead, for a machine that runs other programs; set
OMP_NUM_THREADS=1 with it, because threads that wait for each other also take CPU time.
"""

import argparse
import contextlib
import io
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from overhead_parts import DigitsInMemory, PlainModule, StepClock
from timing import table, train_step

from smmix_pl import SMMixModule
from smmix_pl.cli.config_paths import resolve_configs
from smmix_pl.cli.lightning_cli import SMMixCLI, cli_options
from smmix_pl.cli.main import main as smmix
from smmix_pl.optim import create_optimizer
from smmix_pl.step_timer import device_name

RECIPE = ["--config", "digits.yaml"]
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
WARMUP = 5
"""First steps of a run, in which Lightning creates its metrics."""
IN_TRAINING = ("AttentionQuality", "EMA", "ModelCheckpoint", "Throughput")
"""Callbacks that are left out one by one. All others act outside of training steps."""
PLAIN, TRAINER, MODULE = "plain loop", "its step in a bare Trainer", "SMMixModule in a bare Trainer"
BARE, FIT = "smmix fit without callbacks and loggers", "smmix fit, batches in memory"
LOADED = "smmix fit"
Run = Callable[[], list[float]]
"""A short training that returns when each of its steps began, in seconds."""


def main() -> None:
    """Run all variants in turn and print the tables."""
    options = parse()
    StepClock.now = CLOCKS[options.clock]
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    os.environ["SMMIX_PACKAGES"] = "overhead_parts"
    for part in ("pytorch", "fabric"):
        logging.getLogger(f"lightning.{part}").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        runs = plain_runs(options) | fit_runs(options)
        starts: dict[str, list[list[float]]] = {name: [] for name in runs}
        for _ in range(options.rounds):
            for name, run in runs.items():
                starts[name].append(run())
    costs = {name: step_costs(rounds, options) for name, rounds in starts.items()}
    cpu = device_name(torch.device("cpu"))
    print(f"{cpu}; {options.clock} time; {options.rounds} rounds of {options.epochs} epochs\n")
    print(*variant_rows(costs), "", *cause_rows(costs), sep="\n")


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds to measure")
    parser.add_argument("--epochs", type=int, default=2, help="epochs of 40 steps per run")
    parser.add_argument("--log-every", type=int, default=10, help="trainer.log_every_n_steps")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="time to measure")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return parser.parse_args()


def plain_runs(options: argparse.Namespace) -> dict[str, Run]:
    """Return the runs without the command line."""
    with contextlib.redirect_stderr(io.StringIO()):
        flags = ["--data=overhead_parts.DigitsInMemory", "--trainer.logger=false"]
        cli = SMMixCLI(run=False, args=resolve_configs([*RECIPE, *flags]), **cli_options())
    module, data = cli.model, cli.datamodule
    assert isinstance(module, SMMixModule) and isinstance(data, DigitsInMemory)
    data.setup("fit")
    return {
        PLAIN: lambda: plain_loop(deepcopy(module).to(options.device), data, options),
        TRAINER: lambda: lightning_loop(PlainModule(deepcopy(module)), data, options),
        MODULE: lambda: lightning_loop(deepcopy(module), data, options),
    }


def plain_loop(
    module: SMMixModule, data: DigitsInMemory, options: argparse.Namespace
) -> list[float]:
    """Train without Lightning."""
    starts = []
    optimizer = create_optimizer(module.train().backbone, module.optim, lr=1e-3)
    precision = torch.autocast(options.device, enabled=False)
    for epoch in range(options.epochs):
        for index, (images, labels) in enumerate(data.train_dataloader()):
            starts.append(StepClock.now())
            images, labels = (one.to(options.device, non_blocking=True) for one in (images, labels))
            rng = np.random.default_rng((0, epoch, index))
            train_step(module, optimizer, module.mixer, images, labels, rng, precision)
    return starts


def lightning_loop(
    module: LightningModule, data: DigitsInMemory, options: argparse.Namespace
) -> list[float]:
    """Train in a Trainer without logger, checkpoints, progress bar, and callbacks."""
    with contextlib.redirect_stderr(io.StringIO()):
        trainer = Trainer(
            accelerator=options.device,
            max_epochs=options.epochs,
            log_every_n_steps=options.log_every,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[StepClock()],
        )
        trainer.fit(module, data.train_dataloader())
    return list(StepClock.starts)


def fit_runs(options: argparse.Namespace) -> dict[str, Run]:
    """Return the runs of `smmix fit`: as it is, and with parts left out."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        smmix(["fit", *RECIPE, "--print_config"])
    config = yaml.safe_load(printed.getvalue())
    config["test_after_fit"] = False
    config["trainer"] |= {
        "accelerator": options.device,
        "max_epochs": options.epochs,
        "log_every_n_steps": options.log_every,
        "limit_val_batches": 0,
    }
    names = {path["class_path"].rpartition(".")[2] for path in config["trainer"]["callbacks"]}
    without: dict[str, Any] = {f"without {name}": {"callbacks": [name]} for name in IN_TRAINING} | {
        "without evaluation and output": {"callbacks": names - set(IN_TRAINING)},
        "without the progress bar": {"bar": False},
        "without NonFiniteGuard": {"guard": "off"},
        "without loggers": {"logger": False},
    }
    bare = {"callbacks": names, "bar": False, "guard": "off", "logger": False}
    variants = {BARE: bare, FIT: {}} | without
    runs = {name: partial(fit, reduced(config, **parts)) for name, parts in variants.items()}
    return runs | {LOADED: partial(fit, reduced(config, data=config["data"]["class_path"]))}


def reduced(
    config: dict[str, Any],
    callbacks: Collection[str] = (),
    bar: bool = True,
    guard: str = "stop",
    logger: bool = True,
    data: str = "overhead_parts.DigitsInMemory",
) -> dict[str, Any]:
    """Return a config with a clock and without some callbacks, bar, checks, or loggers."""
    config = deepcopy(config)
    trainer = config["trainer"]
    kept = [
        callback
        for callback in trainer["callbacks"]
        if callback["class_path"].rpartition(".")[2] not in callbacks
    ]
    trainer["callbacks"] = [{"class_path": "overhead_parts.StepClock"}, *kept]
    trainer["enable_progress_bar"] = bar
    trainer["logger"] = trainer["logger"] if logger else False
    if "ModelCheckpoint" in callbacks:
        trainer["enable_checkpointing"] = False
    config["finite"]["action"] = guard
    config["data"]["class_path"] = data
    return config


def fit(config: dict[str, Any]) -> list[float]:
    """Train by the command line."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(config, file)
        file.flush()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            smmix(["fit", "--config", file.name])
    return list(StepClock.starts)


def step_costs(rounds: list[list[float]], options: argparse.Namespace) -> tuple[float, float]:
    """Return milliseconds per step that is not logged, and per step that is."""
    count = len(rounds[0])
    per_epoch = count // options.epochs
    unlogged, logged = [], []
    for step in range(WARMUP, count):
        if (step + 1) % per_epoch == 0:
            continue
        seconds = statistics.median(starts[step + 1] - starts[step] for starts in rounds)
        (unlogged if (step + 1) % options.log_every else logged).append(1000 * seconds)
    return statistics.fmean(unlogged), statistics.fmean(logged)


def variant_rows(costs: dict[str, tuple[float, float]]) -> Iterator[str]:
    """Yield a table of all variants."""
    yield from table("variant", "ms per unlogged step", "on top of plain", "ms per logged step")
    plain = costs[PLAIN][0]
    for name, (unlogged, logged) in costs.items():
        top = unlogged - plain
        yield f"| {name} | {unlogged:.2f} | {top:.2f} ({top / plain:.1%}) | {logged:.2f} |"


def cause_rows(costs: dict[str, tuple[float, float]]) -> Iterator[str]:
    """Yield a table of what each part adds, as differences between variants."""
    pairs = {
        "Lightning's loop": (TRAINER, PLAIN),
        "SMMixModule: seeding, logging, norms": (MODULE, TRAINER),
        "command line: Preemption, schedule, settings": (BARE, MODULE),
        **{name.removeprefix("without "): (FIT, name) for name in costs if name.startswith("with")},
        "loading and augmenting digits": (LOADED, FIT),
    }
    yield from table("cause", "ms per unlogged step", "ms per logged step")
    for cause, (more, less) in pairs.items():
        unlogged, logged = (a - b for a, b in zip(costs[more], costs[less], strict=True))
        yield f"| {cause} | {unlogged:.2f} | {logged:.2f} |"


if __name__ == "__main__":
    main()
