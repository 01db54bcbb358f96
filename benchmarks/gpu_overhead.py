"""What does a run cost on top of its steps on a GPU, and how often does a step wait for the device?

Part 4 of benchmarks/gpu.sh. Writes OUT/overhead.json. Trains the digits recipe, whose steps are so
short that the host is the limit, as benchmarks/overhead.py does: in a plain loop, by `smmix fit` on
batches in memory, and by `smmix fit`. Rounds repeat until the time is up. In one more run of the
second, torch reports each operation that makes the host wait for the device.
"""

import argparse
import contextlib
import os
import tempfile
import time
import warnings
from collections.abc import Iterator

import torch
from gpu_common import PartResults, common_parser, parse, time_left
from overhead import FIT, LOADED, PLAIN, Run, fit_runs, plain_runs, step_costs
from overhead_parts import StepClock


def main() -> None:
    """Measure and print the milliseconds per step."""
    options = parse(common_parser(__doc__, seconds=50))
    options.epochs, options.log_every = (1, 10) if options.smoke else (5, 10)
    results = PartResults(options, "overhead", recipe="digits.yaml", epochs=options.epochs)
    os.environ["SMMIX_PACKAGES"] = "overhead_parts"
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        every = plain_runs(options) | fit_runs(options)
        runs = {name: every[name] for name in (PLAIN, FIT, LOADED)}
        waits = counted_waits(runs[FIT], options)
        rounds = measured(runs, options)
    plain, _ = step_costs(rounds[PLAIN], options)
    for name, starts in rounds.items():
        unlogged, logged = step_costs(starts, options)
        results.add(
            variant=name,
            ms=unlogged,
            ms_logged=logged,
            over_plain_ms=unlogged - plain,
            waits=waits if name == FIT else None,
            rounds=len(starts),
        )
        print(f"{name}: {unlogged:.2f} ms per step, {logged:.2f} if logged", flush=True)
    print(f"{waits:.2f} waits for the device per step", flush=True)
    results.finish()


def measured(runs: dict[str, Run], options: argparse.Namespace) -> dict[str, list[list[float]]]:
    """Return when each step began, by run and round."""
    StepClock.now = time.perf_counter
    starts: dict[str, list[list[float]]] = {name: [] for name in runs}
    while True:
        begun = time.perf_counter()
        for name, run in runs.items():
            starts[name].append(run())
        if options.smoke or time_left(options) < 1.2 * (time.perf_counter() - begun):
            return starts


def counted_waits(run: Run, options: argparse.Namespace) -> float:
    """Return how often a step that is not logged waits for the device, by torch's own report."""
    with reported_waits(options.device) as caught:
        # `step_costs` returns thousandths
        StepClock.now = lambda: len(caught) / 1000
        waits, _ = step_costs([run()], options)
    return waits


@contextlib.contextmanager
def reported_waits(device: str) -> Iterator[list[warnings.WarningMessage]]:
    """Collect a warning for each operation that waits for the GPU."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("ignore")
        warnings.filterwarnings("always", "called a synchronizing CUDA operation")
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield caught
        finally:
            if device == "cuda":
                torch.cuda.set_sync_debug_mode("default")


if __name__ == "__main__":
    main()
