"""A short training run on one device or several, and what each of its ranks saw.

``python devices.py FOLDER STRATEGY DEVICES`` writes ``FOLDER/rank<r>.pt``; Lightning starts the
other processes with the same words. Images are random, mixing is SMMix's own recipe, and nothing
else is drawn: no dropout, no stochastic depth.
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
    """Random images and classes for all ranks."""
    rng = torch.Generator().manual_seed(1)
    count = ranks * STEPS * BATCH
    return TensorDataset(
        torch.randn(count, 3, 16, 16, generator=rng),
        torch.randint(CLASSES, (count,), generator=rng),
    )


def batches_of(data: TensorDataset, rank: int, ranks: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches that Lightning gives a rank: shuffled, and dealt out."""
    mine = torch.tensor(list(DistributedSampler(data, ranks, rank, seed=SEED)))
    return zip(*(tensor[mine].split(BATCH) for tensor in data.tensors), strict=True)


def module() -> SMMixModule:
    """A small ViT under plain SGD, so that a gradient of a wrong size shows in the weights."""
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


class Watch(Callback):
    """Keeps what every batch was mixed by, and the gradient of every optimizer step."""

    def __init__(self) -> None:
        self.seen: Rank = {"mixing": [], "lam": [], "gradients": [], "norms": []}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seen["mixing"].append(pl_module.mixing)
        self.seen["lam"].append(float(trainer.callback_metrics["train/lam"]))
        self.seen["norms"].append(float(trainer.callback_metrics.get("train/grad_norm", "nan")))

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        named = pl_module.named_parameters()
        self.seen["gradients"].append({name: whole(weight.grad) for name, weight in named})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        named = pl_module.named_parameters()
        self.seen["weights"] = {name: whole(weight.detach()) for name, weight in named}
        self.seen["kept"] = sum(local(weight).numel() for weight in pl_module.parameters())
        self.seen["val/loss"] = float(trainer.callback_metrics["val/loss"])


def whole(tensor: Tensor | None) -> Tensor:
    """A copy of a tensor, from all ranks if it is sharded."""
    assert tensor is not None, "a weight has no gradient"
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone()


def local(tensor: Tensor) -> Tensor:
    """What this rank keeps of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def train(data: TensorDataset, folder: Path, **settings: Any) -> Rank:
    """One epoch with a real trainer, and one batch of it on each rank as validation."""
    seed_everything(SEED, verbose=False)
    watch = Watch()
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
        callbacks=[watch],
        **settings,
    )
    trainer.fit(module(), DataLoader(data, BATCH), DataLoader(data, BATCH))
    return watch.seen | {"rank": trainer.global_rank}


if __name__ == "__main__":
    folder, strategy, devices = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    sharded = ModelParallelStrategy(data_parallel_size=devices, tensor_parallel_size=1)
    chosen = sharded if strategy == "sharded" else strategy
    seen = train(images(devices), folder, strategy=chosen, devices=devices)
    torch.save(seen, folder / f"rank{seen['rank']}.pt")
