"""What does each backbone cost, and what motivates SMMix in it? Prints a Markdown table.

python benchmarks/backbones.py [MODEL ...] [--no-time] [--batch 4] [--rounds 3] [--device auto]

Parameters: millions, with 1000 classes, without the token head. GMACs: multiply-adds of one image's
forward pass at 224 x 224, from torch's FLOP counter on the meta device with unfused attention.
Step: time of a whole SMMix step (motivating pass, mixing, forward, backward, AdamW) over that of a
CutMix step, taken in turn, the median of each; the recipe takes it on half of the batches.
"""

import argparse
import statistics

import torch
from timing import CLASSES, Steps, interleave
from torch.utils.flop_counter import FlopCounterMode

from smmix_pl import Backbone, CutMix, SMMix, SMMixModule

SIZE = (224, 224)
MODELS = (
    *("deit_tiny_patch16_224", "deit_small_patch16_224", "deit_base_patch16_224"),
    *("cait_xxs24_224", "cait_xxs36_224"),
    *("pvt_tiny", "pvt_small", "pvt_medium", "pvt_large"),
    *("swin_tiny_patch4_window7_224", "pvt_v2_b1"),
)


def main() -> None:
    """Print the table, a row as soon as it is measured."""
    options = parse()
    print("| model | parameters (M) | GMACs | tokens | attention | SMMix step / CutMix step |")
    print("|---|---|---|---|---|---|")
    for name in options.models:
        cells = describe(name)
        cells.append("" if options.no_time else relative_time(name, options))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL")
    parser.add_argument("--no-time", action="store_true")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def describe(name: str) -> list[str]:
    """Parameters, GMACs, token grid and where attention is read."""
    backbone = Backbone(name, CLASSES, SIZE)
    model = backbone.model
    [source] = [key for key, module in model.named_modules() if module is backbone.tap.module]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return [
        f"{parameters / 1e6:.1f}",
        f"{macs(model.eval()) / 1e9:.2f}",
        "{} x {}".format(*backbone.grid),
        f"`{source}` ({type(backbone.tap.module).__name__})",
    ]


def macs(model: torch.nn.Module) -> float:
    """Multiply-adds of one image."""
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            setattr(module, "fused_attn", False)  # noqa: B010 - a Module's attribute has no type
    model.to("meta").requires_grad_(False)
    with FlopCounterMode(display=False) as counter:  # does not know every fused kernel
        model(torch.empty(1, 3, *SIZE, device="meta"))
    return counter.get_total_flops() / 2


def relative_time(name: str, options: argparse.Namespace) -> str:
    """Median SMMix step over median CutMix step, the first round uncounted."""
    torch.manual_seed(0)
    module = SMMixModule(CLASSES, SIZE, options.batch, SMMix(), backbone=name)
    steps = Steps(module.to(options.device).train(), options.batch, options.device, "float32")
    mixers = {"smmix": SMMix(switch_prob=1), "cutmix": CutMix()}
    actions = {key: steps.clocked(mixer) for key, mixer in mixers.items()}
    times = interleave(actions, options.rounds)
    smmix, cutmix = (statistics.median(times[key]) for key in mixers)
    return f"{smmix / cutmix:.2f} ({smmix:.2f} s / {cutmix:.2f} s)"


if __name__ == "__main__":
    main()
