"""Recordings of the authors' code (tests/golden/README.md), and modules with their weights."""

from pathlib import Path

import numpy as np
import torch

from helpers.small_runs import TINY
from smmix_pl import SMMix, SMMixModule
from smmix_pl.mixing import Mixed, soft_labels

FOLDER = Path(__file__).parents[1] / "golden"
MIXINGS = sorted(path.name for path in FOLDER.glob("mixing_*.npz"))
STEPS = {
    "step_deit.npz": ("deit_tiny_patch16_224", TINY),
    "step_pvt.npz": ("pvt_tiny", {"embed_dims": (16, 32, 40, 64), "depths": (1, 1, 2, 2)}),
}
Recording = dict[str, torch.Tensor]


def load(name: str, device: str | torch.device = "cpu") -> Recording:
    with np.load(FOLDER / name) as arrays:
        return {key: torch.from_numpy(arrays[key]).to(device) for key in arrays}


def recorded_module(name: str, recording: Recording) -> SMMixModule:
    """A module in train mode with the recorded weights, on the device of the recording."""
    backbone, args = STEPS[name]
    module = SMMixModule(
        num_classes=10,
        image_size=tuple(recording["images"].shape[2:]),
        batch_size=8,
        mixer=SMMix(),
        backbone=backbone,
        backbone_args=args,
    ).train()
    module.backbone.load_state_dict(
        {
            name if name.startswith("token_head") else f"model.{name}": value
            for key, value in recording.items()
            if key.startswith("param/")
            for name in [key.removeprefix("param/")]
        }
    )
    return module.to(recording["images"].device)


def mix_as_recorded(module: SMMixModule, recording: Recording) -> Mixed:
    labels = soft_labels(recording["labels"], 10, float(recording["label_smoothing"]))
    side = int(recording["region_side"])
    return module.mixer.mix_regions(
        recording["images"], labels, module.backbone, side, np.random.default_rng(0)
    )


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours.detach().double(), theirs.double(), rtol=1e-4, atol=1e-6)
