"""What does each backbone cost, and which block guides SMMix in it? Prints a Markdown table.

    python benchmarks/backbone_cost.py [MODEL ...] [--no-time] [--batch 4] [--rounds 3]

Parameters: millions with 1000 classes, without the token head. GMACs: multiply-adds of one forward
pass of one image at 224 x 224, from torch's FLOP counter on the meta device, attention unfused.
Step: time of a complete SMMix step divided by that of a CutMix step, medians of alternating rounds.
A step is guide pass, mixing, forward, backward, and AdamW. The recipe uses SMMix for half of the
batches.
"""

import argparse
import statistics

import torch
from timing import CLASSES, SIZE, Steps, add_options, build_module, interleave, table
from torch.utils.flop_counter import FlopCounterMode

from smmix_pl import Backbone, CutMix, SMMix

MODELS = (
    *("deit_tiny_patch16_224", "deit_small_patch16_224", "deit_base_patch16_224"),
    *("cait_xxs24_224", "cait_xxs36_224"),
    *("pvt_tiny", "pvt_small", "pvt_medium", "pvt_large"),
    *("swin_tiny_patch4_window7_224", "pvt_v2_b1"),
)


def main() -> None:
    """Print the table, row by row."""
    options = parse()
    header = "model", "parameters (M)", "GMACs", "tokens", "attention", "SMMix step / CutMix step"
    print(*table(*header), sep="\n")
    for name in options.models:
        cells = describe(name)
        cells.append("" if options.no_time else relative_time(name, options))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL")
    parser.add_argument("--no-time", action="store_true", help="leave the last column empty")
    add_options(parser, batch=4, rounds=3, precision=False)
    return parser.parse_args()


def describe(name: str) -> list[str]:
    """Return parameters, GMACs, token grid, and the module whose attention guides."""
    backbone = Backbone(name, CLASSES, SIZE)
    model = backbone.model
    [source] = [key for key, module in model.named_modules() if module is backbone.tap.module]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return [
        f"{parameters / 1e6:.1f}",
        f"{multiply_adds(model.eval()) / 1e9:.2f}",
        "{} x {}".format(*backbone.grid),
        f"`{source}` ({type(backbone.tap.module).__name__})",
    ]


def multiply_adds(model: torch.nn.Module) -> float:
    """Return the multiply-adds of one image. The model is moved to the meta device."""
    for module in model.modules():
        if hasattr(module, "fused_attn"):  # the counter does not support every fused kernel
            setattr(module, "fused_attn", False)  # noqa: B010 - attributes of modules are untyped
    model.to("meta").requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, *SIZE, device="meta"))
    return counter.get_total_flops() / 2


def relative_time(name: str, options: argparse.Namespace) -> str:
    """Return the ratio of the median SMMix and CutMix steps, and both."""
    module = build_module(name, options, SMMix())
    steps = Steps(module, options.batch, options.device, "float32")
    mixers = {"smmix": SMMix(switch_prob=1), "cutmix": CutMix()}
    actions = {key: steps.clocked(mixer) for key, mixer in mixers.items()}
    times = interleave(actions, options.rounds)
    smmix, cutmix = (statistics.median(times[key]) for key in mixers)
    return f"{smmix / cutmix:.2f} ({smmix:.2f} s / {cutmix:.2f} s)"


if __name__ == "__main__":
    main()
