"""A training step never waits for the device: it reads nothing back and copies nothing over."""

import pytest
import torch
from helpers.sampling import every
from helpers.small_runs import TINY, digits, module, trainer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from smmix_pl import (
    AttentiveCutMix,
    CutMix,
    FMix,
    GridMix,
    MergeMix,
    MixPro,
    Mixup,
    MixupCutMix,
    NoMix,
    ResizeMix,
    SaliencyMix,
    SMMix,
    SMMixModule,
    SUMix,
    TdAttenMix,
    TLAlign,
    TokenMix,
    TransMix,
)
from smmix_pl.callbacks import Throughput

WAITING = {
    "_local_scalar_dense",  # .item(), float(tensor), if tensor:
    "nonzero",  # shapes that follow from values
    "masked_select",
    "unique_dim",
    "_unique2",
}


class NoWaiting(TorchDispatchMode):
    """Fails on operations for which the host waits for a GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        assert name not in WAITING and not by_mask, f"{name} makes the host wait for the device"
        return func(*args, **(kwargs or {}))


class NoCopies(TorchFunctionMode):
    """Fails on tensors made of Python numbers, which are copied, unlike those of `torch.full`."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        assert func not in (torch.tensor, torch.as_tensor), "the host waits for the device's copy"
        return func(*args, **(kwargs or {}))


class CheckedModule(SMMixModule):
    """Checked from the second step on: Lightning creates its metrics in the first."""

    def training_step(self, batch, batch_idx):
        if batch_idx == 0:
            return super().training_step(batch, batch_idx)
        with NoWaiting(), NoCopies():
            return super().training_step(batch, batch_idx)


MIXERS = [
    *(
        AttentiveCutMix(),
        FMix(),
        GridMix(),
        MixPro(switch_prob=1, cell_side=2),
        MixupCutMix(),
        ResizeMix(),
    ),
    *(SaliencyMix(), TokenMix(switch_prob=1), TransMix(switch_prob=1)),
    *(TLAlign(), MergeMix(switch_prob=1), TdAttenMix(switch_prob=1), SUMix()),
    SMMix(switch_prob=1),
    SMMix(switch_prob=1, per_sample_side=True),
    SMMix(switch_prob=1, region_choice="random"),
    Mixup(),
    CutMix(),
    NoMix(),
]


@pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: type(mixer).__name__)
@pytest.mark.parametrize("precision", every(2, ["32-true", "bf16-mixed"]))
def test_training_step_does_not_wait(mixer, precision, tmp_path):
    model = module(mixer)
    model.__class__ = CheckedModule
    fit = trainer(tmp_path, max_steps=3, precision=precision, limit_val_batches=0)
    fit.fit(model, digits())
    assert fit.global_step == 3


def test_waiting_is_detected():
    for wait in (lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: torch.tensor(1.0)):
        with pytest.raises(AssertionError, match="wait"), NoWaiting(), NoCopies():
            wait(torch.ones(2))


@pytest.mark.gpu
@pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: type(mixer).__name__)
def test_training_step_does_not_wait_for_a_gpu(mixer, tmp_path):
    class CheckedModule(SMMixModule):
        def training_step(self, batch, batch_idx):
            torch.cuda.set_sync_debug_mode("error" if batch_idx else "default")
            try:
                return super().training_step(batch, batch_idx)
            finally:
                torch.cuda.set_sync_debug_mode("default")

    model = CheckedModule(
        10, (32, 32), 64, mixer, backbone="vit_tiny_patch16_224", backbone_args=TINY
    )
    fit = trainer(
        tmp_path,
        max_steps=3,
        accelerator="gpu",
        devices=1,
        precision="bf16-mixed",
        limit_val_batches=0,
        callbacks=[Throughput()],
    )
    fit.fit(model, digits(image_size=32))
