"""EMA weights: decay warm-up, precision, and pickling."""

import csv
import pickle

import pytest
import torch
from helpers.small_runs import digits, module, trainer
from lightning.pytorch.loggers import CSVLogger

from smmix_pl import InputError, NoMix
from smmix_pl.callbacks import EMA


def fit(folder, ema, **options):
    settings = {"max_steps": 4, "limit_val_batches": 0, "log_every_n_steps": 2} | options
    run = trainer(folder, logger=CSVLogger(folder), callbacks=[ema], **settings)
    model = module(NoMix())
    start = {name: weight.clone() for name, weight in model.state_dict().items()}
    run.fit(model, digits())
    return model, start


@pytest.mark.filterwarnings("error:.*needs to be floating")
@pytest.mark.parametrize(
    ("decay", "warmup", "expected"),
    [(0.9999, True, [2 / 11, 4 / 13]), (0.9999, False, [0.9999, 0.9999]), (0, True, [0, 0])],
)
def test_the_decay_is_warmed_up_and_logged(tmp_path, decay, warmup, expected):
    fit(tmp_path, EMA(decay=decay, warmup=warmup))
    with (tmp_path / "lightning_logs/version_0/metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["train/ema_decay"]]
    assert [float(row["train/ema_decay"]) for row in rows] == pytest.approx(expected)
    assert [row["step"] for row in rows] == ["1", "3"]


def test_a_warmed_up_average_leaves_the_initial_weights(tmp_path):
    name = "backbone.model.head.weight"
    distances = []
    for warmup in (True, False):
        model, start = fit(tmp_path, EMA(decay=0.9999, warmup=warmup))
        distances.append(float((model.state_dict()[name] - start[name]).norm()))
    assert distances[0] > distances[1] > 0


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_weights_that_are_not_float32_are_rejected(tmp_path, precision):
    with pytest.raises(InputError, match=rf"trainer\.precision={precision}"):
        fit(tmp_path, EMA(), precision=precision)


def test_the_callback_can_be_pickled():
    """Spawned processes receive the trainer and its callbacks by pickle."""
    copy = pickle.loads(pickle.dumps(EMA(decay=0.5)))
    assert copy.decay_at(1000) == 0.5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_spawned_processes_train_with_ema(tmp_path):
    fit(tmp_path, EMA(decay=0.5), strategy="ddp_spawn", devices=2, accelerator="cpu")
    assert torch.is_grad_enabled()
