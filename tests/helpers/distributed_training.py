"""A short training run on one or several devices, with a record of every rank.

`python distributed_training.py FOLDER STRATEGY DEVICES` writes `FOLDER/rank<r>.pt`. Lightning
starts the other processes with the same arguments. Images are random and mixed by SMMix; there is
no other randomness, because the model has neither dropout nor stochastic depth.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from smmix_pl import OptimConfig, SMMix, SMMixModule

SEED, STEPS, BATCH, CLASSES = 0, 24, 4, 10
Rank = dict[str, Any]


def images(ranks: int) -> TensorDataset:
    """Return random images and classes for all ranks."""
    rng = torch.Generator().manual_seed(1)
    count = ranks * STEPS * BATCH
    return TensorDataset(
        torch.randn(count, 3, 16, 16, generator=rng),
        torch.randint(CLASSES, (count,), generator=rng),
    )


def batches_of(data: TensorDataset, rank: int, ranks: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Return the batches that Lightning gives to a rank."""
    mine = torch.tensor(list(DistributedSampler(data, ranks, rank, seed=SEED)))
    return zip(*(tensor[mine].split(BATCH) for tensor in data.tensors), strict=True)


def module() -> SMMixModule:
    """Return a small ViT with plain SGD, so that the size of a gradient shows in the weights."""
    torch.manual_seed(0)
    return SMMixModule(
        num_classes=CLASSES,
        image_size=(16, 16),
        batch_size=BATCH,
        mixer=SMMix(),
        backbone="vit_tiny_patch16_224",
        backbone_args={"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2},
        optim=OptimConfig(
            name="sgd", lr=0.01, lr_batch=None, warmup_epochs=0, weight_decay=0, interval="epoch"
        ),
    )


class StepRecord(Callback):
    """Records how every batch was mixed, and the gradient of every optimizer step."""

    def __init__(self) -> None:
        self.seen: Rank = {"mixing": [], "lam": [], "gradients": [], "norms": []}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seen["mixing"].append(outputs["notes"])
        self.seen["lam"].append(float(outputs["lam"]))
        self.seen["norms"].append(float(trainer.callback_metrics.get("train/grad_norm", "nan")))

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        named = pl_module.named_parameters()
        self.seen["gradients"].append({name: gathered(weight.grad) for name, weight in named})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        named = pl_module.named_parameters()
        self.seen["weights"] = {name: gathered(weight.detach()) for name, weight in named}
        self.seen["kept"] = sum(local(weight).numel() for weight in pl_module.parameters())
        self.seen["val/loss"] = float(trainer.callback_metrics["val/loss"])


def gathered(tensor: Tensor | None) -> Tensor:
    """Return a copy of a tensor, gathered from all ranks if it is sharded."""
    assert tensor is not None, "a weight has no gradient"
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone()


def local(tensor: Tensor) -> Tensor:
    """Return the shard of a tensor on this rank."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def train(data: TensorDataset, folder: Path, **settings: Any) -> Rank:
    """Train for one epoch, and validate one batch on each rank."""
    seed_everything(SEED, verbose=False)
    record = StepRecord()
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        limit_val_batches=1,
        callbacks=[record],
        **settings,
    )
    trainer.fit(module(), DataLoader(data, BATCH), DataLoader(data, BATCH))
    return record.seen | {"rank": trainer.global_rank}


if __name__ == "__main__":
    folder, strategy, devices = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    sharded = ModelParallelStrategy(data_parallel_size=devices, tensor_parallel_size=1)
    chosen = sharded if strategy == "sharded" else strategy
    seen = train(images(devices), folder, strategy=chosen, devices=devices)
    torch.save(seen, folder / f"rank{seen['rank']}.pt")
