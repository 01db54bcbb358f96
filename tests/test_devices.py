"""Several devices, and accumulated gradients, train like one device on the joined batch."""

import numpy as np
import pytest
import torch
from helpers import distributed_training, processes
from helpers.distributed_training import BATCH, SEED, STEPS, Rank, batches_of, images, module, train
from helpers.sampling import every
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from smmix_pl import InputError, SMMixModule
from smmix_pl.callbacks import EMA, AttentionQuality, MixedImages
from smmix_pl.mixing import soft_labels
from smmix_pl.optim import create_optimizer

KINDS = every(3, ["ddp-2", "sharded-2", "ddp-3"])


Part = tuple[Tensor, Tensor, int]
"""Images, classes, and the index of the batch whose choices mix them."""


def joined(steps: list[list[Part]]) -> tuple[SMMixModule, list[dict[str, Tensor]]]:
    """Train in plain PyTorch on one device; each step has several parts, mixed separately.

    Separately, because image i is mixed with image B-1-i of the batch of its own rank.

    Returns:
        The trained module, and the gradients of each step by weight.
    """
    model, gradients = module(), []
    optimizer = create_optimizer(model.backbone, model.optim, lr=model.optim.lr)
    for parts in steps:
        optimizer.zero_grad()
        for pictures, classes, index in parts:
            labels = soft_labels(classes, model.num_classes, model.loss_config.label_smoothing)
            rng = np.random.default_rng((SEED, 0, index))  # epoch 0
            mixed = model.mixer(pictures, labels, model.backbone, rng)
            (model.criterion(mixed) / len(parts)).backward()
        gradients.append({name: weight.grad.clone() for name, weight in model.named_parameters()})
        optimizer.step()
    return model, gradients


def weights_of(model: SMMixModule) -> dict[str, Tensor]:
    return {name: weight.detach() for name, weight in model.named_parameters()}


def distance(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return the largest difference of any tensor, relative to the norm of that tensor."""
    assert found.keys() == expected.keys()
    return max(
        float((found[key] - value).norm()) / (float(value.norm()) or 1)
        for key, value in expected.items()
    )


@pytest.fixture(scope="module", params=KINDS)
def ranks(request, tmp_path_factory) -> list[Rank]:
    """Run the helper on several ranks, and return the record of each."""
    folder = tmp_path_factory.mktemp(request.param)
    strategy, devices = request.param.split("-")
    program = (distributed_training.__file__, folder, strategy, devices)
    for result in processes.run_ranks(int(devices), *program, cwd=folder):
        assert result.returncode == 0, result.stderr[-3000:]
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(int(devices))]


def test_ranks_train_like_one_device_on_their_joined_batches(ranks):
    data = images(len(ranks))
    dealt = zip(*(batches_of(data, rank, len(ranks)) for rank in range(len(ranks))), strict=True)
    steps = [[(*batch, index) for batch in step] for index, step in enumerate(dealt)]
    model, gradients = joined(steps)
    assert {notes["branch"] for notes in ranks[0]["mixing"][:4]} == {0.0, 1.0}
    for seen in ranks:
        assert len(seen["gradients"]) == STEPS
        for step, (found, expected) in enumerate(zip(seen["gradients"], gradients, strict=True)):
            # Rounding errors of earlier steps accumulate in the weights
            assert distance(found, expected) < (1e-6 if step < 4 else 1e-5), seen["mixing"][step]
        assert distance(seen["weights"], weights_of(model)) < 1e-6
    model.eval()
    pictures, classes = data[: len(ranks) * BATCH]
    with torch.no_grad():
        loss = float(F.cross_entropy(model(pictures), classes))
    assert all(seen["val/loss"] == pytest.approx(loss, rel=1e-5) for seen in ranks)


def test_ranks_share_branch_lam_and_region_side(ranks):
    first, *others = ranks
    assert len(first["mixing"]) == len(first["lam"]) == STEPS
    assert len({notes["region_side"] for notes in first["mixing"] if notes["branch"]}) == 3
    for other in others:
        assert other["mixing"] == first["mixing"]
        assert other["lam"] == first["lam"]
        assert other["norms"] == first["norms"]


def test_the_logged_norm_is_that_of_the_complete_gradient(ranks):
    for seen in ranks:
        for logged, gradients in zip(seen["norms"], seen["gradients"], strict=True):
            norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
            assert logged == pytest.approx(float(norm), rel=1e-5)


def test_weights_are_sharded_under_model_parallel_only(ranks, request):
    weights = sum(weight.numel() for weight in module().parameters())
    sharded = request.node.callspec.params["ranks"].startswith("sharded")
    kept = [seen["kept"] for seen in ranks]
    assert max(kept) < 0.6 * weights if sharded else min(kept) == weights


def test_accumulated_batches_train_like_their_joined_batch(tmp_path):
    data = images(1)
    seen = train(data, tmp_path, devices=1, accumulate_grad_batches=2)
    in_order = zip(*(tensor.split(BATCH) for tensor in data.tensors), strict=True)
    parts = [(*batch, index) for index, batch in enumerate(in_order)]
    model, gradients = joined([parts[step : step + 2] for step in range(0, STEPS, 2)])
    branches = [notes["branch"] for notes in seen["mixing"]]
    assert set(branches[:2]) == {0.0, 1.0}  # both branches in one step
    assert branches[2:4] == [0.0, 0.0]  # Mixup alone
    assert len(seen["gradients"]) == STEPS // 2
    for found, expected in zip(seen["gradients"], gradients, strict=True):
        assert distance(found, expected) < 1e-5
    assert distance(seen["weights"], weights_of(model)) < 1e-6


@pytest.mark.parametrize("callback", [EMA(), MixedImages(), AttentionQuality()])
def test_callbacks_that_need_unsharded_weights_are_rejected(callback):
    trainer = Trainer(
        accelerator="cpu",
        strategy=ModelParallelStrategy(),
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
    )
    with pytest.raises(InputError, match=rf"{type(callback).__name__}.*ModelParallelStrategy"):
        trainer.fit(module(), DataLoader(images(1), BATCH))
    torch.distributed.destroy_process_group()
