"""Attention metrics checked by hand and with loops; measuring them leaves training unchanged."""

import csv
import itertools
import math

import pytest
import torch
from helpers.digits import complete_test_set, digits, quiet_trainer
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.loggers import CSVLogger

from smmix_pl import InputError, OptimConfig, SMMix, SMMixModule
from smmix_pl.callbacks import AttentionQuality, Throughput
from smmix_pl.callbacks.training.attention_quality import (
    attention_quality,
    fraction_inside,
    normalized_entropy,
)

NAMES = {"entropy", "copied", "covered", "pasted", "area", "windows_overlap"}


def test_entropy_by_hand():
    uniform, one, half = torch.full((3, 4), 1 / 12), torch.zeros(3, 4), torch.zeros(3, 4)
    one[1, 2] = 1
    half[0, 0] = half[2, 3] = 0.5
    found = normalized_entropy(torch.stack((uniform, one, half)))
    assert found.tolist() == pytest.approx([1, 0, math.log(2) / math.log(12)])


@given(st.integers(0, 2**31 - 1), st.floats(0.01, 100))
def test_entropy_and_fraction_do_not_depend_on_the_scale_of_attention(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    attention = torch.rand(2, 3, 5, generator=generator)
    mask = torch.rand(2, 15, generator=generator) < 0.5
    for measure in (normalized_entropy, lambda a: fraction_inside(a, mask)):
        torch.testing.assert_close(measure(scale * attention), measure(attention))
    assert ((normalized_entropy(attention) >= 0) & (normalized_entropy(attention) <= 1)).all()


def test_fraction_inside_by_hand():
    attention = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    mask = torch.tensor([[True, False, False, True]])
    assert fraction_inside(attention, mask).tolist() == [0.5]


def best_window(attention, side, sign):
    """Return the first window in row-major order with the highest sum of sign * attention."""
    height, width = attention.shape
    corners = itertools.product(range(height - side + 1), range(width - side + 1))
    return max(
        corners, key=lambda at: sign * float(window(attention, at, side).double().sum())
    )  # max returns the first of equal values


def window(x, corner, side):
    row, column = corner
    return x[..., row : row + side, column : column + side]


def test_all_values_agree_with_loops(tiny_backbone):
    """Images of 32 pixels have 8 x 8 tokens, so windows have 4 tokens or 16 pixels."""
    images = complete_test_set()[0][:6]
    backbone = tiny_backbone.eval()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.mul_(2)  # so that attention is not uniform
    attention = backbone.guide(images).attention
    most = [best_window(one, 4, 1) for one in attention]
    least = [best_window(one, 4, -1) for one in attention]
    mixed = images.clone()
    for i, (to, origin) in enumerate(zip(least, reversed(most), strict=True)):
        source = window(images[5 - i], [4 * x for x in origin], 16)
        window(mixed[i], [4 * x for x in to], 16)[:] = source
    after = backbone.guide(mixed).attention

    def fraction(attention, corners):
        pairs = zip(attention, corners, strict=True)
        return sum(float(window(a, at, 4).sum() / a.sum()) for a, at in pairs) / 6

    overlap = [
        abs(a - c) < 4 and abs(b - d) < 4 for (a, b), (c, d) in zip(most, least, strict=True)
    ]
    expected = {
        "entropy": float(normalized_entropy(attention).mean()),
        "copied": fraction(attention, most),
        "covered": fraction(attention, least),
        "pasted": fraction(after, least),
        "area": 0.25,
        "windows_overlap": sum(overlap) / 6,
    }
    found = {name: float(value) for name, value in attention_quality(backbone, images).items()}
    assert found == pytest.approx(expected, abs=1e-5)
    assert found["covered"] < found["area"] < found["copied"]


class Kept(Callback):
    """Stores the loss of every step."""

    def __init__(self):
        self.losses = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"].clone())


def trained(folder, *callbacks):
    seed_everything(0)
    module = SMMixModule(
        num_classes=10,
        image_size=(16, 16),
        batch_size=64,
        mixer=SMMix(),
        backbone="vit_tiny_patch16_224",
        backbone_args={
            **{"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2},
            **{"drop_path_rate": 0.3, "proj_drop_rate": 0.1},
        },
        optim=OptimConfig(lr=2e-3, lr_batch=None, warmup_epochs=0),
    )
    kept = Kept()
    options = {"max_epochs": 1, "limit_train_batches": 6, "limit_val_batches": 0}
    options |= {"logger": CSVLogger(folder), "log_every_n_steps": 2}
    data = digits(image_size=16, batch_size=64)
    quiet_trainer(*callbacks, kept, **options).fit(module, data)
    return module, kept.losses


def test_training_is_bit_identical_with_and_without(tmp_path):
    plain, without = trained(tmp_path / "without")
    callbacks = AttentionQuality(every_n_steps=3, images=8), Throughput()
    watched, with_it = trained(tmp_path / "with", *callbacks)
    assert len(without) == 6
    assert all(map(torch.equal, without, with_it))
    for name, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name
    with (tmp_path / "with/lightning_logs/version_0/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows if row["images_per_second"]] == [1, 3, 5]
    for name in NAMES:  # every 4 steps, from the first logged one on
        assert [int(row["step"]) for row in rows if row[f"attention/{name}"]] == [1, 5]
    assert all(module.training for module in watched.modules())


@pytest.mark.parametrize(("name", "value"), [("every_n_steps", 0), ("images", 1)])
def test_invalid_arguments_are_rejected(name, value):
    with pytest.raises(InputError, match=rf"AttentionQuality\.{name}={value}"):
        AttentionQuality(**{name: value})
