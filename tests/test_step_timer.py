"""The clock of a step's parts."""

import time

import pytest
import torch
from helpers.small_runs import digits, module, trainer
from lightning.pytorch import Callback

from smmix_pl import SMMix
from smmix_pl.callbacks import Throughput
from smmix_pl.step_timer import StepTimer, span


def test_spans_of_a_step_are_summed_and_others_forgotten(monkeypatch):
    clock = StepTimer(torch.device("cpu"))
    monkeypatch.setattr(StepTimer, "running", clock)
    with span("motivate"):
        time.sleep(0.2)  # before the step
    clock.begin_step()
    with span("mix"):
        for _ in range(2):
            with span("motivate"):
                time.sleep(0.02)
        time.sleep(0.02)
    seconds = clock.end_step()
    assert 0.04 <= seconds["motivate"] < 0.2
    assert seconds["motivate"] + 0.02 <= seconds["mix"] <= seconds["step"]
    clock.begin_step()
    assert set(clock.end_step()) == {"step"}


def test_a_span_that_raises_is_not_counted(monkeypatch):
    clock = StepTimer(torch.device("cpu"))
    monkeypatch.setattr(StepTimer, "running", clock)
    clock.begin_step()
    with pytest.raises(ValueError, match="stop"), span("mix"):
        raise ValueError("stop")
    assert set(clock.end_step()) == {"step"}


def test_the_parts_of_a_training_step_are_logged(tmp_path):
    class Seen(Callback):
        def on_train_batch_end(self, trainer, *_):
            self.found = {key: float(value) for key, value in trainer.callback_metrics.items()}

    seen = Seen()
    run = trainer(tmp_path, max_steps=3, log_every_n_steps=1, callbacks=[Throughput(), seen])
    run.fit(module(SMMix(switch_prob=1)), digits())
    parts = {part: seen.found[f"time/{part}"] for part in ("data", "motivate", "mix", "train")}
    assert all(0 < seconds < 10 for seconds in parts.values())
    assert parts["train"] > parts["motivate"] > 0
    assert 0.05 < seen.found["memory/peak_gib"] < 64
    assert seen.found["images_per_second"] > 0
    assert seen.found["train/grad_norm"] > 0
    weights = torch.cat([weight.detach().flatten() for weight in run.lightning_module.parameters()])
    assert seen.found["train/weight_norm"] == pytest.approx(float(weights.norm()), rel=0.1)
    assert StepTimer.running is None
