"""A run that is stopped and resumed equals the run that was never stopped, bit for bit."""

import csv
import pickle

import pytest
import torch
from helpers.sampling import every
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from smmix_pl import Digits, OptimConfig, SMMix, SMMixModule
from smmix_pl.callbacks import EMA, Throughput
from smmix_pl.data import TrainTransform
from smmix_pl.data.samplers import Draw, TrainingSampler

BATCHES, EPOCHS = 8, 3
RANDOM = TrainTransform(random_erasing=0.5)  # crops, flips, RandAugment and erasing
MOMENTS = ["batch_6", "batch_8", "batch_11", "validation_1", "epoch=0", "epoch=1"]
"""When the checkpoint was saved: after a batch, after a validation, at the end of an epoch.

Batch 8 is the last one of the first epoch: its validation is still due.
"""
KINDS = {
    "all options": {"num_workers": 1, "accumulate": 3, "repeats": 3},
    "end by steps": {"max_steps": 20},
}
MORE_KINDS = {
    "plain": {},
    "workers": {"num_workers": 2},
    "accumulation": {"accumulate": 3},
    "repeats": {"repeats": 3},
    "schedule by epoch": {"interval": "epoch"},
}
TIMED = {"images_per_second", "memory/peak_gib"} | {
    f"time/{part}" for part in ("data", "guide", "mix", "train")
}
STALE = {
    *("train/loss_consistency", "train/loss_fine_grained_target"),
    *("train/loss_fine_grained_source", "train/region_side"),
}
"""Lightning repeats the last value of the epoch at a step that does not log one."""


class Watch(Callback):
    """Records the classes of every batch, and saves checkpoints within an epoch."""

    def __init__(self, folder):
        self.folder, self.classes = folder, {}

    def save(self, trainer, name):
        if not (self.folder / f"{name}.ckpt").exists():
            trainer.save_checkpoint(self.folder / f"{name}.ckpt")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        place = trainer.current_epoch * BATCHES + batch_idx
        assert place not in self.classes
        self.classes[place] = batch[1].tolist()
        if place + 1 in (6, 8, 11):
            self.save(trainer, f"batch_{place + 1}")

    def on_validation_end(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            self.save(trainer, "validation_1")


def fit(folder, ckpt_path=None, accumulate=1, interval="step", max_steps=-1, **options):
    """Run once; nothing may depend on what the process drew before."""
    seed_everything(3, verbose=False)
    model = SMMixModule(
        num_classes=10,
        image_size=(16, 16),
        batch_size=16,
        mixer=SMMix(),
        backbone="vit_tiny_patch16_224",
        backbone_args={
            **{"patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2},
            **{"drop_path_rate": 0.3, "proj_drop_rate": 0.1},
        },
        optim=OptimConfig(lr=2e-3, lr_batch=None, warmup_epochs=1, interval=interval),
    )
    settings = {"image_size": 16, "batch_size": 16, "num_workers": 0} | options
    watch = Watch(folder)
    log = CSVLogger(folder, "log", version="resumed" if ckpt_path else "straight")
    run = Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        max_steps=max_steps,
        limit_train_batches=BATCHES,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        accumulate_grad_batches=accumulate,
        logger=log,
        log_every_n_steps=1,
        callbacks=[
            EMA(decay=0.5),
            Throughput(),
            watch,
            ModelCheckpoint(folder, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    torch.manual_seed(11 if ckpt_path else 12)
    run.fit(model, Digits(train_transform=RANDOM, **settings), ckpt_path=ckpt_path)
    return run, watch, rows(folder / "log" / log.version / "metrics.csv")


def rows(file):
    """Return the log as tuples of step, name, and value."""
    with file.open() as opened:
        table = list(csv.DictReader(opened))
    return {
        (int(row["step"]), key, value)
        for row in table
        for key, value in row.items()
        if value and key not in TIMED
    }


def flat(state, place=""):
    """Return every number in nested states by its place."""
    if isinstance(state, dict):
        pairs = state.items()
    elif isinstance(state, list | tuple):
        pairs = enumerate(state)
    else:
        return {place: state}
    return {k: v for key, value in pairs for k, v in flat(value, f"{place}/{key}").items()}


@pytest.fixture(
    scope="module",
    params=[*KINDS, *(pytest.param(kind, marks=pytest.mark.slow) for kind in MORE_KINDS)],
)
def straight(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    kind = (KINDS | MORE_KINDS)[request.param]
    return folder, kind, fit(folder, **kind)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("moment", every(6, MOMENTS))
def test_a_resumed_run_equals_the_straight_one(straight, moment):
    folder, kind, (run, watch, logged) = straight
    again, resumed, relogged = fit(folder, ckpt_path=folder / f"{moment}.ckpt", **kind)
    ends = []
    for trainer in (run, again):
        model, [optimizer], [schedule] = (
            trainer.lightning_module,
            trainer.optimizers,
            trainer.lr_scheduler_configs,
        )
        states = model.state_dict(), optimizer.state_dict(), schedule.scheduler.state_dict()
        ends.append(flat([*states, trainer.callbacks[0]._average_model.state_dict()]))
    for place, value in ends[0].items():
        same = torch.equal if isinstance(value, torch.Tensor) else lambda a, b: a == b
        assert same(value, ends[1][place]), place
    assert run.global_step == again.global_step
    assert run.current_epoch == again.current_epoch
    first = min(resumed.classes)
    assert resumed.classes == {k: v for k, v in watch.classes.items() if k >= first}
    assert first == {"batch_6": 6, "batch_8": 8, "batch_11": 11, "epoch=0": 8}.get(moment, 16)
    assert not relogged - logged
    step = min(step for step, name, _ in relogged if name == "train/loss")
    assert not {row for row in logged - relogged if row[0] >= step and row[1] not in STALE}
    if moment == "batch_8":
        validated = {
            min(s for s, name, _ in rows if name == "val/loss") for rows in (logged, relogged)
        }
        assert len(validated) == 1


def test_a_run_that_was_not_resumed_differs(straight):
    """The comparison above can fail: other streams give other weights."""
    _, _, (run, watch, _) = straight
    assert len({tuple(batch) for batch in watch.classes.values()}) == len(watch.classes)
    assert run.callbacks[0]._average_model.n_averaged > 1


def test_a_sampler_starts_at_a_given_draw():
    plain, late = (TrainingSampler(range(50), 3, 1, seed=4, repeats=3) for _ in range(2))
    late.first = 7
    complete = list(plain)
    assert list(late) == complete[7:]
    assert [draw.seed for draw in late] == [draw.seed for draw in complete[7:]]
    assert len({draw.seed for draw in complete}) == len(
        complete
    )  # repeats are augmented differently
    late.set_epoch(1)
    assert not {draw.seed for draw in late} & {draw.seed for draw in complete}


def test_an_index_keeps_its_seed_on_the_way_to_a_worker():
    draw = pickle.loads(pickle.dumps(Draw(5, 2**63 + 1)))
    assert (draw, draw.seed) == (5, 2**63 + 1)
