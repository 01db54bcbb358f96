"""NaN and infinity stop the run in the step where they appear, or skip it."""

import pytest
import torch
from helpers.sampling import every
from helpers.small_runs import digits, module, trainer
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision

from smmix_pl import InputError, NoMix, SMMix
from smmix_pl.callbacks import NonFiniteGuard
from smmix_pl.mixing.regions import least_attended, most_attended


class Poison(Callback):
    """Replaces the loss, or gradients, of given batches."""

    def __init__(self, batches, where="loss", value=float("nan")):
        self.batches, self.where, self.value = batches, where, value

    def on_before_backward(self, trainer, pl_module, loss):
        if trainer.fit_loop.batch_idx in self.batches and self.where == "loss":
            loss.data.fill_(self.value)

    def on_after_backward(self, trainer, pl_module):
        if trainer.fit_loop.batch_idx in self.batches:
            if self.where == "gradient":
                pl_module.backbone.model.head.weight.grad[0, 0] = self.value
            else:
                for weight in pl_module.parameters():
                    weight.grad.fill_(self.value)


def run(tmp_path, *callbacks, mixer=None, data=None, **options):
    seed_everything(0)
    settings = {"max_epochs": 1, "limit_train_batches": 8} | options
    fit = trainer(tmp_path, callbacks=list(callbacks), **settings)
    model = module(mixer or NoMix())
    fit.fit(model, data or digits())
    return fit, model


@pytest.mark.parametrize("value", every(3, [float("nan"), float("inf"), -float("inf")]))
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_non_finite_value_stops_the_run_in_its_step(tmp_path, value, where):
    with pytest.raises(InputError) as raised:
        run(tmp_path, Poison([5], where, value), NonFiniteGuard(), mixer=SMMix(switch_prob=1))
    message = str(raised.value)
    for part in ("epoch 0, batch 5", "optimizer step 5", "SMMix", "region side", "images #"):
        assert part in message
    assert (f"train/loss={value}" if where == "loss" else "backbone.model.head.weight") in message


@pytest.mark.parametrize("held_out", [0.0, 0.5], ids=["all images", "some held out"])
def test_the_error_names_the_images_by_their_index_in_the_training_set(tmp_path, held_out):
    data = digits(batch_size=3, held_out=held_out)
    with pytest.raises(InputError) as raised:
        run(tmp_path, Poison([1]), NonFiniteGuard(), data=data)
    loader = data.train_dataloader()
    order = list(loader.sampler)[3:6]
    expected = [loader.dataset.images.indices[i] for i in order] if held_out else order
    assert ", ".join(f"#{index}" for index in expected) + ")" in str(raised.value)


def test_a_skipped_step_leaves_the_weights_unchanged_and_is_counted(tmp_path):
    class Weights(Callback):
        def __init__(self):
            self.kept = []

        def on_train_batch_end(self, trainer, pl_module, *_):
            self.kept.append(pl_module.backbone.model.head.weight.detach().clone())

    weights = Weights()
    with pytest.warns(UserWarning, match=r"skipped \(2 in this run\)"):
        fit, model = run(
            tmp_path, Poison([3, 6]), NonFiniteGuard("skip"), weights, log_every_n_steps=8
        )
    same = [torch.equal(a, b) for a, b in zip(weights.kept, weights.kept[1:], strict=False)]
    assert [index + 1 for index, equal in enumerate(same) if equal] == [3, 6]
    assert float(fit.callback_metrics["train/skipped_steps"]) == 2
    assert all(weight.isfinite().all() for weight in model.parameters())


def test_skipping_stops_after_patience_steps_in_a_row(tmp_path):
    with (
        pytest.warns(UserWarning, match="skipped"),
        pytest.raises(InputError, match="3 steps in a row"),
    ):
        run(tmp_path, Poison(range(8)), NonFiniteGuard("skip", patience=3))


def test_the_count_is_logged_at_logged_steps_only(tmp_path):
    log = CSVLogger(tmp_path)
    with pytest.warns(UserWarning, match="skipped"):
        run(tmp_path, Poison([1]), NonFiniteGuard("skip"), logger=log, log_every_n_steps=3)
    header, *rows = (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()
    column, step = (header.split(",").index(name) for name in ("train/skipped_steps", "step"))
    logged = [row.split(",") for row in rows]
    assert [(row[step], row[column]) for row in logged if row[column]] == [
        ("2", "1.0"),
        ("5", "1.0"),
    ]


def test_the_count_continues_after_a_resume():
    counted, resumed = NonFiniteGuard("skip"), NonFiniteGuard("skip")
    counted.skipped = 4
    resumed.load_state_dict(counted.state_dict())
    assert resumed.skipped == 4


def scaled_fit(tmp_path, scaler, *callbacks):
    fit = Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=6,
        limit_val_batches=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        plugins=[MixedPrecision("16-mixed", "cpu", scaler)],
        callbacks=list(callbacks),
    )
    model = module(NoMix())
    fit.fit(model, digits())
    return model


def test_overflow_that_the_scaler_handles_does_not_count(tmp_path):
    """The first scale of a real gradient scaler is so large that loss and gradients overflow."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
    model = scaled_fit(tmp_path, scaler, NonFiniteGuard())
    assert scaler.get_scale() < 2.0**127
    assert all(weight.isfinite().all() for weight in model.parameters())


def test_overflow_that_no_scale_prevents_stops_the_run(tmp_path):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    with pytest.raises(InputError, match=r"head\.weight.*4 steps in a row"):
        scaled_fit(tmp_path, scaler, Poison(range(8), "gradient"), NonFiniteGuard(patience=4))


NUMBERS = st.sampled_from([float("nan"), float("inf"), -float("inf"), 0.0, 0.25])


@given(st.data(), st.integers(2, 7), st.integers(2, 7))
def test_non_finite_attention_gives_windows_inside_the_grid(data, height, width):
    side = data.draw(st.integers(1, min(height, width) - 1))
    values = data.draw(st.lists(NUMBERS, min_size=height * width, max_size=height * width))
    for attention in (
        torch.tensor(values).view(1, height, width),
        torch.full((2, height, width), values[0]),
    ):
        for choose in (most_attended, least_attended):
            corners = choose(attention, side)
            assert (corners >= 0).all()
            assert (corners <= torch.tensor([height - side, width - side])).all()
