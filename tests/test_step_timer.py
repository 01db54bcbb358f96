"""Timing of the parts of a step."""

import time

import pytest
import torch
from helpers.small_runs import digits, module, trainer
from lightning.pytorch import Callback

from smmix_pl import SMMix
from smmix_pl.callbacks import Throughput
from smmix_pl.step_timer import StepTimer, span


def test_spans_of_a_step_are_summed_and_earlier_ones_dropped(monkeypatch):
    timer = StepTimer(torch.device("cpu"))
    monkeypatch.setattr(StepTimer, "running", timer)
    with span("guide"):
        time.sleep(0.2)  # before the step
    timer.begin_step()
    with span("mix"):
        for _ in range(2):
            with span("guide"):
                time.sleep(0.02)
        time.sleep(0.02)
    seconds = timer.end_step()
    assert 0.04 <= seconds["guide"] <= seconds["mix"] - 0.02
    assert seconds["mix"] <= seconds["step"]
    timer.begin_step()
    assert set(timer.end_step()) == {"step"}


def test_a_span_that_raises_is_not_counted(monkeypatch):
    timer = StepTimer(torch.device("cpu"))
    monkeypatch.setattr(StepTimer, "running", timer)
    timer.begin_step()
    with pytest.raises(ValueError, match="stop"), span("mix"):
        raise ValueError("stop")
    assert set(timer.end_step()) == {"step"}


def test_the_parts_of_a_training_step_are_logged(tmp_path):
    class Seen(Callback):
        def on_train_batch_end(self, trainer, *_):
            self.found = {key: float(value) for key, value in trainer.callback_metrics.items()}

    seen = Seen()
    run = trainer(tmp_path, max_steps=4, log_every_n_steps=2, callbacks=[Throughput(), seen])
    run.fit(module(SMMix(switch_prob=1)), digits())
    parts = {part: seen.found[f"time/{part}"] for part in ("data", "guide", "mix", "train")}
    assert all(seconds > 0 for seconds in parts.values())
    assert 0.05 < seen.found["memory/peak_gib"] < 64
    assert seen.found["images_per_second"] > 0
    assert seen.found["train/grad_norm"] > 0
    weights = torch.cat([weight.detach().flatten() for weight in run.lightning_module.parameters()])
    assert seen.found["train/weight_norm"] == pytest.approx(float(weights.norm()), rel=0.1)
    assert StepTimer.running is None


def test_nothing_is_timed_at_steps_that_are_not_logged(tmp_path):
    class Timed(Callback):
        def __init__(self):
            self.steps = []

        def on_train_batch_end(self, trainer, *_):
            if StepTimer.running is not None:
                self.steps.append(trainer.global_step)

    timed = Timed()
    options = {"max_steps": 6, "log_every_n_steps": 3, "accumulate_grad_batches": 2}
    run = trainer(tmp_path, callbacks=[timed, Throughput()], **options)
    run.fit(module(SMMix()), digits())
    assert timed.steps == [3, 6]
