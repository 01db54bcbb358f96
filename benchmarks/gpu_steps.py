"""Time training steps on the GPU: all ways to mix, timm's step, and the authors' step.

Part 2 of benchmarks/gpu.sh. Writes OUT/steps.json. Groups of variants run in order of value: DeiT-S
eager, then PVT-S and DeiT-B, then DeiT-S compiled. Within a group all variants take turns, and the
ratio to CutMix is the median over rounds of the ratio within one round. Synchronization happens
after several steps, as in training; the authors' step synchronizes each time, as their engine does.

"SMMix as trained" alternates SMMix and Mixup steps, since the recipe draws each with probability
0.5. Peak memory is that of a variant's own weights, gradients, optimizer state and activations.
FLOPs are counted on an eager step and include the guide pass.
"""

import argparse
import functools
import gc
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from authors_step import Reference
from gpu_common import PartResults, build_module, common_parser, parse, peak_flops, time_left
from timing import CLASSES, Clocked, Steps, autocast, clocked, interleave, median_ratio
from timm.data import Mixup as TimmMixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from torch.utils.flop_counter import FlopCounterMode

from smmix_pl import CutMix, Mixer, MixupCutMix, NoMix, SMMix

BASELINE = "CutMix"
AS_TRAINED = "SMMix as trained"
GUIDE_112 = "SMMix as trained, guide at half size"
TIMM = "timm, Mixup+CutMix"
AUTHORS = "authors' SMMix as trained"
SMMIX_CYCLE = (SMMix(switch_prob=1), SMMix(switch_prob=0))
CYCLES: dict[str, tuple[Mixer, ...]] = {
    BASELINE: (CutMix(),),
    AS_TRAINED: SMMIX_CYCLE,
    "no mixing": (NoMix(),),
    "Mixup+CutMix": (MixupCutMix(),),
    "SMMix branch": (SMMix(switch_prob=1),),
}
"""Mixers that take turns in one variant, most valuable variant first."""
COMPILE_SECONDS = {BASELINE: 70, AS_TRAINED: 35, TIMM: 60, GUIDE_112: 50}
"""Time that has to be left before a variant is compiled; the others reuse its graphs."""


@dataclass(frozen=True)
class Sizes:
    """What the smoke run reduces."""

    image: int
    batch: int
    rounds: int
    repeats: int
    models: Mapping[str, dict[str, Any]]
    """Arguments by name of the timm model; the first model is measured in all variants."""


FULL = Sizes(
    image=224,
    batch=256,
    rounds=7,
    repeats=6,
    models={"deit_small_patch16_224": {}, "pvt_small": {}, "deit_base_patch16_224": {}},
)
SMOKE = Sizes(
    image=64,
    batch=4,
    rounds=2,
    repeats=1,
    models={
        "deit_small_patch16_224": {"embed_dim": 48, "depth": 2, "num_heads": 3},
        "pvt_small": {"embed_dims": (8, 16, 20, 32), "num_heads": (1, 2, 2, 4), "depths": (1,) * 4},
        "deit_base_patch16_224": {"embed_dim": 48, "depth": 2, "num_heads": 3},
    },
)


class Variant:
    """A way to train in this process.

    Args:
        steps: Steps that take turns.
        repeats: Turns between two synchronizations.
        device: Where the steps run.
        allocated: Bytes that were allocated on the device before the model was built.
    """

    def __init__(
        self, steps: Sequence[Callable[[], None]], repeats: int, device: str, allocated: int
    ) -> None:
        self.steps = steps
        self.count = repeats * len(steps)
        self.device = device
        self.allocated = allocated
        self.clock = clocked(lambda: self.run(repeats), device)

    def run(self, repeats: int = 1) -> None:
        """Run every step in turn."""
        for _ in range(repeats):
            for step in self.steps:
                step()

    def seconds(self) -> float:
        """Return the mean seconds of a step."""
        return self.clock() / self.count

    def peak_gib(self) -> float | None:
        """Warm up, and return the peak memory of one turn in GiB."""
        self.run()  # creates the optimizer state and compiles
        if self.device == "cpu":
            return None
        torch.cuda.reset_peak_memory_stats()
        self.run()
        return (torch.cuda.max_memory_allocated() - self.allocated) / 2**30

    def flops(self) -> float:
        """Return the mean FLOPs of a step, guide pass included."""
        with FlopCounterMode(display=False) as counter:
            self.run()
        return counter.get_total_flops() / len(self.steps)


class AuthorsVariant:
    """The authors' training step, which runs in its own process."""

    def __init__(self, reference: Reference, action: Clocked) -> None:
        self.reference, self.seconds = reference, action

    def peak_gib(self) -> float | None:
        """Warm up, and return the peak memory of a step in GiB."""
        self.seconds()
        self.seconds()
        return max(self.reference.peak_bytes.values()) / 2**30 or None


class TimmSteps:
    """timm's own training step, written as its train.py does it.

    timm's Mixup works in place, so the same batch is mixed again in every step. That changes the
    values and not the time.
    """

    def __init__(
        self, name: str, sizes: Sizes, options: argparse.Namespace, compiled: bool
    ) -> None:
        device = options.device
        args = {"drop_path_rate": 0.1, "img_size": sizes.image} | sizes.models[name]
        model = timm.create_model(name, num_classes=CLASSES, **args).to(device).train()
        self.optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-5, weight_decay=0.05)
        self.model = torch.compile(model) if compiled else model
        self.mixup = TimmMixup(
            mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=CLASSES
        )
        self.loss = SoftTargetCrossEntropy()
        self.images = torch.randn(sizes.batch, 3, sizes.image, sizes.image, device=device)
        self.classes = torch.randint(CLASSES, (sizes.batch,), device=device)
        self.autocast = functools.partial(autocast, device, options.precision)

    def step(self) -> None:
        """Train on one batch."""
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):  # as train.py sets it
            images, labels = self.mixup(self.images, self.classes)
            with self.autocast():
                loss = self.loss(self.model(images), labels)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()


class Builder:
    """Builds the variants of one model; variants with the same module share it.

    Args:
        name: Name of the timm model.
        compiled: Compile the passes of the step.
        sizes: Image size, batch size and model arguments.
        options: Parsed options.
    """

    def __init__(
        self, name: str, compiled: bool, sizes: Sizes, options: argparse.Namespace
    ) -> None:
        self.name, self.compiled = name, compiled
        self.sizes, self.options = sizes, options
        self.steps = functools.cache(self._steps)

    def ours(self, cycle: Sequence[Mixer], guide_size: int | None = None) -> Variant:
        """Return our training step with the mixers of a cycle."""
        steps, allocated = self.steps(guide_size)
        return self._variant([functools.partial(steps.step, mixer) for mixer in cycle], allocated)

    def timm(self) -> Variant:
        """Return timm's training step."""
        allocated = allocated_bytes(self.options.device)
        steps = TimmSteps(self.name, self.sizes, self.options, self.compiled)
        return self._variant([steps.step], allocated)

    def _steps(self, guide_size: int | None) -> tuple[Steps, int]:
        allocated = allocated_bytes(self.options.device)
        module = build_module(
            self.name,
            CLASSES,
            self.sizes.image,
            self.sizes.batch,
            SMMix(),
            self.options.device,
            self.sizes.models[self.name],
            guide_size,
            self.compiled,
        )
        steps = Steps(module, self.sizes.batch, self.options.device, self.options.precision)
        return steps, allocated

    def _variant(self, steps: Sequence[Callable[[], None]], allocated: int) -> Variant:
        return Variant(steps, self.sizes.repeats, self.options.device, allocated)


def main() -> None:
    """Measure all groups of variants."""
    options = parse_options()
    sizes = SMOKE if options.smoke else FULL
    # Otherwise a second image size would turn the guide pass into one for any size
    torch._dynamo.config.automatic_dynamic_shapes = False
    if options.smoke:  # inductor takes too long on a CPU
        torch.compile = functools.partial(torch.compile, backend="eager")
    results = PartResults(options, "steps", batch=sizes.batch, image_size=sizes.image)
    flops: dict[tuple[str, str], float] = {}
    first, *others = sizes.models
    for model, compiled in ((first, False), *((name, False) for name in others), (first, True)):
        try:
            with authors(model, compiled, sizes, options) as reference:
                builder = Builder(model, compiled, sizes, options)
                measure(builder, variants(builder, reference, model == first), flops, results)
        except (Exception, SystemExit) as error:
            results.problem(group_name(model, compiled), error)
        builder = None  # peak memory counts from what is allocated before a model is built
        gc.collect()
        if not options.smoke:
            torch.cuda.empty_cache()
    results.finish()


def parse_options() -> argparse.Namespace:
    """Parse the command line."""
    parser = common_parser(__doc__, seconds=180)
    parser.add_argument("--reference", type=Path, help="clone of github.com/ChenMnZ/SMMix")
    options = parse(parser)
    found = options.carry / "reference"
    if options.reference is None and found.is_dir():
        options.reference = found
    return options


def authors(model: str, compiled: bool, sizes: Sizes, options: argparse.Namespace) -> Reference:
    """Start the authors' code: fp16 with a loss scaler, and the guide pass in float32."""
    settings = argparse.Namespace(
        device=options.device,
        batch=sizes.batch,
        precision="float32" if options.smoke else "fp16",
    )
    return Reference(None if compiled else options.reference, model, settings)


def variants(
    builder: Builder, reference: Reference, everything: bool
) -> dict[str, Callable[[], Variant | AuthorsVariant]]:
    """Return the functions that build a group's variants, most valuable first."""
    makers: dict[str, Callable[[], Variant | AuthorsVariant]] = {
        name: functools.partial(builder.ours, cycle) for name, cycle in CYCLES.items()
    }
    half = builder.sizes.image // 2
    if everything:
        makers[TIMM] = builder.timm
        makers[GUIDE_112] = functools.partial(builder.ours, SMMIX_CYCLE, half)
    else:
        del makers["no mixing"], makers["Mixup+CutMix"]
    if actions := reference.actions():
        makers[AUTHORS] = functools.partial(AuthorsVariant, reference, actions[AUTHORS])
    return makers


def measure(
    builder: Builder,
    makers: Mapping[str, Callable[[], Variant | AuthorsVariant]],
    flops: dict[tuple[str, str], float],
    results: PartResults,
) -> None:
    """Prepare the variants of a group, time them in turn, and save and print the rows."""
    options, sizes, model = builder.options, builder.sizes, builder.name
    group = group_name(model, builder.compiled)
    ready, memory = {}, {}
    for name, make in makers.items():
        needed = COMPILE_SECONDS.get(name, 10) if builder.compiled and not options.smoke else 5
        if time_left(options) < needed:
            results.problem(f"{group}: {name}", "not measured, the time limit is near")
            continue
        try:
            variant = make()
            memory[name] = variant.peak_gib()
            if isinstance(variant, Variant) and not builder.compiled:
                flops[model, name] = variant.flops()
            ready[name] = variant.seconds
        except (Exception, SystemExit) as error:
            results.problem(f"{group}: {name}", error)
    times = timed_rounds(ready, sizes.rounds, options)
    print(f"\n{group}, batch {sizes.batch}, {options.precision}", flush=True)
    baseline = times.get(BASELINE)
    for name, seconds in times.items():
        step = statistics.median(seconds)
        counted = flops.get((model, AS_TRAINED if name == AUTHORS else name))
        peak = peak_flops(options.device)
        row = {
            "images_per_second": sizes.batch / step,
            "step_ms": 1000 * step,
            "step_ms_range": [1000 * min(seconds), 1000 * max(seconds)],
            "step_over_cutmix": median_ratio(seconds, baseline) if baseline else None,
            "peak_gib": memory[name],
            "gflop_per_image": counted and counted / sizes.batch / 1e9,
            "mfu": counted / step / peak if counted and peak else None,
            "rounds": len(seconds),
        }
        results.add(model=model, variant=name, compiled=builder.compiled, **row)
        print(f"  {name}: {row['images_per_second']:.0f} images/s, {row['step_ms']:.1f} ms")


def timed_rounds(
    actions: Mapping[str, Clocked], rounds: int, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Return the seconds per step of each action, for as many rounds as the time limit allows."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for index in range(rounds):
        if index and time_left(options) < 5:
            break
        for name, seconds in interleave(actions, rounds=1, warmup=0).items():
            times[name] += seconds
    return times


def allocated_bytes(device: str) -> int:
    """Return the GPU memory in use."""
    return 0 if device == "cpu" else torch.cuda.memory_allocated()


def group_name(model: str, compiled: bool) -> str:
    """Return the name of a group in messages."""
    return f"{model}, {'compiled' if compiled else 'eager'}"


if __name__ == "__main__":
    main()
