"""Several devices and accumulated gradients train as one device does on the joined batch."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.distributed_training import BATCH, SEED, STEPS, Rank, batches_of, images, module, train
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from smmix_pl import InputError, SMMixModule
from smmix_pl.callbacks import EMA, AttentionQuality, MixedImages
from smmix_pl.cli.config_paths import configs_folder
from smmix_pl.mixing import soft_labels
from smmix_pl.optim import create_optimizer

KINDS = ["ddp-2", "sharded-2", pytest.param("ddp-3", marks=pytest.mark.slow)]


Part = tuple[Tensor, Tensor, int]
"""Images, classes, and the index of the batch whose choices mix them."""


def joined(steps: list[list[Part]]) -> tuple[SMMixModule, list[dict[str, Tensor]]]:
    """Plain torch on one device: the parts of each step are mixed one by one and trained on as one.

    They are mixed apart because image i is mixed with image B-1-i of its own rank's batch.

    Returns:
        The trained module, and the gradients of each step by weight.
    """
    model, gradients = module(), []
    optimizer = create_optimizer(model.backbone, model.optim, lr=model.optim.lr)
    for parts in steps:
        optimizer.zero_grad()
        for pictures, classes, index in parts:
            labels = soft_labels(classes, model.num_classes, model.label_smoothing)
            rng = np.random.default_rng((SEED, 0, index))  # epoch 0
            mixed = model.mixer(pictures, labels, model.backbone, rng)
            loss = model.criterion(mixed)
            (loss / len(parts)).backward()
        gradients.append({name: weight.grad.clone() for name, weight in model.named_parameters()})
        optimizer.step()
    return model, gradients


def weights_of(model: SMMixModule) -> dict[str, Tensor]:
    return {name: weight.detach() for name, weight in model.named_parameters()}


def far(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference of any tensor, as a share of that tensor's norm."""
    assert found.keys() == expected.keys()
    return max(
        float((found[key] - value).norm()) / (float(value.norm()) or 1)
        for key, value in expected.items()
    )


@pytest.fixture(scope="module", params=KINDS)
def ranks(request, tmp_path_factory) -> list[Rank]:
    """What each rank of a run saw; the processes are Lightning's own."""
    folder = tmp_path_factory.mktemp(request.param)
    strategy, devices = request.param.split("-")
    result = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("devices.py")), folder, strategy, devices],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(int(devices))]


def test_ranks_train_as_one_device_on_their_joined_batches(ranks):
    """Each half of a joined batch is mixed as its rank mixes it; see `joined`."""
    data = images(len(ranks))
    dealt = zip(*(batches_of(data, rank, len(ranks)) for rank in range(len(ranks))), strict=True)
    steps = [[(*batch, index) for batch in step] for index, step in enumerate(dealt)]
    model, gradients = joined(steps)
    branches = {found.rpartition(" ")[2] for found in ranks[0]["mixing"][:4]}
    assert branches == {"0", "1"}  # Mixup and SMMix, from the first steps on
    for seen in ranks:
        assert len(seen["gradients"]) == STEPS
        for step, (found, expected) in enumerate(zip(seen["gradients"], gradients, strict=True)):
            # Weights of a later step carry the rounding of those before
            assert far(found, expected) < (1e-6 if step < 4 else 1e-5), seen["mixing"][step]
        assert far(seen["weights"], weights_of(model)) < 1e-6
    model.eval()
    pictures, classes = data[: len(ranks) * BATCH]
    with torch.no_grad():
        loss = float(F.cross_entropy(model(pictures), classes))
    assert all(seen["val/loss"] == pytest.approx(loss, rel=1e-5) for seen in ranks)


def test_ranks_share_branch_lam_and_region_side(ranks):
    first, *others = ranks
    assert len(first["mixing"]) == len(first["lam"]) == STEPS
    assert len({found for found in first["mixing"] if "region side" in found}) == 3
    for other in others:
        assert other["mixing"] == first["mixing"]
        assert other["lam"] == first["lam"]
        assert other["norms"] == first["norms"]


def test_the_logged_norm_is_that_of_the_whole_gradient(ranks):
    for seen in ranks:
        for logged, gradients in zip(seen["norms"], seen["gradients"], strict=True):
            whole = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
            assert logged == pytest.approx(float(whole), rel=1e-5)


def test_weights_are_shared_out_where_that_was_asked_for(ranks, request):
    weights = sum(weight.numel() for weight in module().parameters())
    sharded = request.node.callspec.params["ranks"].startswith("sharded")
    kept = [seen["kept"] for seen in ranks]
    assert max(kept) < 0.6 * weights if sharded else min(kept) == weights


def test_accumulated_batches_train_as_their_joined_batch(tmp_path):
    """Two batches a step, each mixed by its own choices; see `joined`."""
    data = images(1)
    seen = train(data, tmp_path, devices=1, accumulate_grad_batches=2)
    in_order = zip(*(tensor.split(BATCH) for tensor in data.tensors), strict=True)
    parts = [(*batch, index) for index, batch in enumerate(in_order)]
    model, gradients = joined([parts[step : step + 2] for step in range(0, STEPS, 2)])
    kinds = [{found.rpartition(" ")[2] for found in seen["mixing"][i : i + 2]} for i in (0, 2)]
    assert kinds == [{"0", "1"}, {"0"}]  # a step of both branches, and one of Mixup alone
    assert len(seen["gradients"]) == STEPS // 2
    for found, expected in zip(seen["gradients"], gradients, strict=True):
        assert far(found, expected) < 1e-5
    assert far(seen["weights"], weights_of(model)) < 1e-6


@pytest.mark.parametrize("callback", [EMA(), MixedImages(), AttentionQuality()])
def test_what_needs_whole_weights_is_refused_where_they_are_sharded(callback):
    trainer = Trainer(
        accelerator="cpu",
        strategy=ModelParallelStrategy(),
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
    )
    with pytest.raises(InputError, match=f"{type(callback).__name__} needs whole weights"):
        trainer.fit(module(), DataLoader(images(1), BATCH))
    torch.distributed.destroy_process_group()


def test_the_machines_of_the_readme_keep_the_global_batch():
    readme = Path(__file__).parent.parent / "README.md"
    rows = re.findall(r"^\| .*GPUs? \| `(--trainer.*)` \|$", readme.read_text(), re.MULTILINE)
    [per_device] = re.findall(r"batch_size: (\d+)", (configs_folder() / "deit_t.yaml").read_text())
    assert len(rows) == 6
    for row in rows:
        flags = dict(re.findall(r"--[a-z]+\.(\w+) (\d+)", row))
        factors = ("num_nodes", "devices", "accumulate_grad_batches")
        batch = int(flags.get("batch_size", per_device))
        assert batch * math.prod(int(flags.get(name, 1)) for name in factors) == 1024, row
