"""Tests on an NVIDIA GPU: precision, parity, host synchronization, memory, and exact resume."""

import numpy as np
import pytest
import torch
from helpers.golden import MIXINGS, STEPS, assert_close, load, mix_as_recorded, recorded_module
from helpers.small_runs import TINY, digits, module, trainer
from lightning.pytorch import Callback, seed_everything

from smmix_pl import CutMix, SMMix, SMMixModule
from smmix_pl.callbacks import Throughput
from smmix_pl.mixing import soft_labels
from smmix_pl.mixing.regions import least_attended, most_attended, paste, window_mask

pytestmark = pytest.mark.gpu
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.fixture(autouse=True)
def exact_convolutions(monkeypatch):
    """Compute float32 convolutions in float32, as matrix products are by default."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("name", MIXINGS)
def test_max_min_mixing_is_exact(name, device):
    recorded = load(name, device)
    grid = (int(recorded["side"]),) * 2
    region_side = int(recorded["region_side"])
    images, attention = recorded["images"], recorded["attention"].unflatten(1, grid)
    to = least_attended(attention, region_side)
    origin = most_attended(attention.flip(0), region_side)
    mixed = paste(images, images.flip(0), to, origin, region_side, grid)
    assert torch.equal(mixed, recorded["mixed"])
    assert torch.equal(window_mask(to, region_side, grid), recorded["source_mask"])


@pytest.mark.parametrize("name", STEPS)
def test_step_equals_the_recorded_one(name, device):
    recorded = load(name, device)
    model = recorded_module(name, recorded)
    guide = model.backbone.guide(recorded["images"])
    assert_close(guide.logits, recorded["unmixed_logits"])
    assert_close(guide.attention.flatten(1), recorded["attention"])

    mixed = mix_as_recorded(model, recorded)
    assert torch.equal(mixed.images, recorded["mixed"])
    loss = model.criterion(mixed)
    assert_close(loss, recorded["loss"])
    loss.backward()
    for name, weight in model.backbone.named_parameters():
        expected = recorded[f"grad_norm/{name.removeprefix('model.')}"]
        assert_close(weight.grad.norm(), expected)


def smmix_step(device, precision="float32", compile=False):
    """One SMMix step from fixed weights, images, and regions: attention, losses, and gradient.

    Regions are random, since rounding can change which of two similar regions attention prefers.
    """
    torch.manual_seed(0)
    model = SMMixModule(
        10,
        (32, 32),
        16,
        SMMix(switch_prob=1, region_choice="random"),
        backbone="vit_tiny_patch16_224",
        backbone_args=TINY,
        compile=compile,
    )
    images = torch.randn(16, 3, 32, 32).to(device)
    labels = soft_labels(torch.arange(16, device=device) % 10, 10, 0.1)
    model.to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    with torch.autocast(device.type, DTYPES[precision], enabled=precision != "float32"):
        with torch.no_grad():
            attention = model.backbone.guide(images).attention
            mixed = model.mixer(images, labels, model.backbone, np.random.default_rng(0))
        losses = model.criterion.terms(mixed)
        loss = model.criterion.total(losses)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    gradient = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    before = model.backbone.token_head.weight.detach().clone()
    scaler.step(optimizer)
    assert not torch.equal(model.backbone.token_head.weight, before)  # no overflow
    return attention, torch.stack(list(losses.values())), gradient


def relative_error(found, expected):
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"precision": "bf16"}, 0.02),
        ({"precision": "fp16"}, 0.003),
        ({"compile": True}, 1e-4),
    ],
    ids=["bf16", "fp16", "compiled"],
)
def test_step_is_close_to_the_eager_float32_step(device, options, tolerance):
    found, expected = smmix_step(device, **options), smmix_step(device)
    errors = [relative_error(*pair) for pair in zip(found, expected, strict=True)]
    assert max(errors) < tolerance


class ForbidSynchronization(Callback):
    """Raises if the host waits for the GPU within a step whose values are not logged."""

    checked = 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        # Lightning creates the records of its log in the first step
        if batch_idx and (trainer.global_step + 1) % trainer.log_every_n_steps:
            torch.cuda.set_sync_debug_mode("error")
            self.checked += 1

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def sync_debug_mode():
    yield
    torch.cuda.set_sync_debug_mode("default")


def test_complete_step_does_not_synchronize(sync_debug_mode, tmp_path):
    model = module(SMMix(switch_prob=1))
    guard = ForbidSynchronization()
    fit = trainer(
        tmp_path,
        accelerator="gpu",
        devices=1,
        precision="bf16-mixed",
        max_steps=6,
        log_every_n_steps=3,
        limit_val_batches=0,
        callbacks=[Throughput(), guard],
    )
    fit.fit(model, digits())
    assert guard.checked == 3  # of steps 2, 4, and 5


def peak_bytes(mixer):
    torch.manual_seed(0)
    model = SMMixModule(10, (224, 224), 64, mixer).cuda().train()
    images, classes = torch.randn(64, 3, 224, 224).cuda(), torch.arange(64).cuda() % 10
    optimizer = torch.optim.AdamW(model.parameters())
    for step in range(2):
        if step:  # the optimizer state exists
            torch.cuda.reset_peak_memory_stats()
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            labels = soft_labels(classes, 10, 0.1)
            with torch.no_grad():
                mixed = mixer(images, labels, model.backbone, np.random.default_rng(0))
            loss = model.criterion(mixed)
        loss.backward()
        optimizer.step()
    return torch.cuda.max_memory_allocated()


def test_smmix_step_takes_little_more_memory_than_cutmix():
    assert peak_bytes(SMMix(switch_prob=1)) < 1.1 * peak_bytes(CutMix())


class SaveAfterBatch(Callback):
    """Saves a checkpoint in the middle of the second epoch."""

    def __init__(self, file):
        self.file = file

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (1, 1) and not self.file.exists():
            trainer.save_checkpoint(self.file)


@pytest.fixture
def deterministic_algorithms():
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.filterwarnings("ignore")
def test_resumed_run_equals_the_straight_one(device, deterministic_algorithms, tmp_path):
    checkpoint = tmp_path / "middle.ckpt"
    ends = []
    for ckpt_path in (None, checkpoint):
        seed_everything(3, verbose=False)
        args = {"patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2, "drop_path_rate": 0.3}
        model = module(SMMix(), batch_size=16, backbone_args=args)
        fit = trainer(
            tmp_path,
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            precision="bf16-mixed",
            deterministic=True,
            max_epochs=2,
            limit_train_batches=4,
            limit_val_batches=0,
            callbacks=[SaveAfterBatch(checkpoint)],
        )
        torch.manual_seed(11 if ckpt_path else 12)  # nothing may depend on the process
        fit.fit(model, digits(batch_size=16), ckpt_path=ckpt_path)
        ends.append((fit.global_step, model.state_dict(), fit.optimizers[0].state_dict()["state"]))
    (steps, weights, state), (resumed_steps, resumed_weights, resumed_state) = ends
    assert steps == resumed_steps == 8
    for name, value in weights.items():
        assert torch.equal(value, resumed_weights[name]), name
    for index, values in state.items():
        for name, value in values.items():
            assert torch.equal(value, resumed_state[index][name]), (index, name)
