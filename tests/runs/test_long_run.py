"""Long and many runs: memory, worker processes, and open files do not accumulate."""

import gc
import os
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.digits import digits
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import Dataset

from smmix_pl import Digits, OptimConfig, SMMix, SMMixModule
from smmix_pl.callbacks import EMA, Calibration, NonFiniteGuard, Preemption, Throughput

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc"),
]

STEPS, BATCHES, CYCLES = 2_000, 10_000, 20
GROWTH = 1.02
SMALL = {"image_size": 16, "num_workers": 0}


class Repeated(Dataset):
    """A dataset repeated up to a length."""

    def __init__(self, images, length):
        self.images, self.length = images, length
        self.targets = [images.targets[index % len(images)] for index in range(length)]

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return self.images[index % len(self.images)]


class ManyDigits(Digits):
    """Digits with as many images per split as the longest test needs."""

    def images(self, split, transform):
        return Repeated(super().images(split, transform), BATCHES)


class Memory(Callback):
    """Records resident memory in bytes at each hundredth of a run, after its first quarter."""

    def __init__(self, total):
        self.total, self.found = total, []

    def on_train_batch_end(self, trainer, *_):
        self.record(trainer.global_step)

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.record(batch_idx + 1)

    def record(self, done):
        if done % (self.total // 100) == 0 and done >= self.total // 4:
            gc.collect()
            self.found.append(resident())

    def assert_flat(self):
        assert len(self.found) > 70
        first, last = max(self.found[:5]), max(self.found[-5:])
        assert last < GROWTH * first, [size // 2**20 for size in self.found]


def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def model(batch_size):
    seed_everything(0, verbose=False)
    return SMMixModule(
        num_classes=10,
        image_size=(16, 16),
        batch_size=batch_size,
        mixer=SMMix(),
        backbone="vit_tiny_patch16_224",
        backbone_args={"patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 1},
        optim=OptimConfig(lr=1e-3, lr_batch=None, warmup_epochs=0),
    )


def trainer(folder, *callbacks, **options):
    """Return a trainer with a recipe's logger and callbacks."""
    return Trainer(
        accelerator="cpu",
        logger=CSVLogger(folder, "log"),
        callbacks=[
            ModelCheckpoint(monitor="val/loss"),
            EMA(decay=0.9),
            Throughput(),
            Calibration(),
            NonFiniteGuard(),
            Preemption(),
            *callbacks,
        ],
        log_every_n_steps=10,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


@pytest.mark.filterwarnings("ignore")
def test_memory_is_constant_during_training(tmp_path):
    memory = Memory(STEPS)
    run = trainer(tmp_path, memory, max_epochs=-1, max_steps=STEPS, limit_val_batches=2)
    run.fit(model(4), digits(**SMALL, batch_size=4))
    assert run.global_step == STEPS
    memory.assert_flat()


@pytest.mark.filterwarnings("ignore")
def test_memory_is_constant_during_evaluation(tmp_path):
    memory = Memory(BATCHES)
    run = trainer(tmp_path, memory)
    run.test(model(1), ManyDigits(**SMALL, batch_size=1), verbose=False)
    memory.assert_flat()


def open_files_and_children():
    """Return the numbers of open files and of child processes."""
    gc.collect()
    children: list[str] = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has just ended
            children += (task / "children").read_text().split()
    return len(os.listdir("/proc/self/fd")), len(children)


@pytest.mark.filterwarnings("ignore")
def test_many_runs_leave_no_processes_and_open_files(tmp_path):
    counts = []
    for _ in range(CYCLES):
        data = digits(image_size=16, batch_size=8, num_workers=2)
        run = trainer(
            tmp_path,
            max_epochs=2,
            limit_train_batches=2,
            limit_val_batches=2,
            limit_test_batches=2,
        )
        run.fit(model(8), data)
        run.test(ckpt_path="best", datamodule=data, verbose=False)
        del run, data
        counts.append(open_files_and_children())
    assert counts[-1] == counts[1], counts
