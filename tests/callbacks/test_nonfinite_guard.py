"""Numbers that go wrong stop in their step, or skip it; wrong attention stays in range."""

import pytest
import torch
from helpers.small_runs import digits, module, trainer
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.plugins import MixedPrecision

from smmix_pl import InputError, NoMix, SMMix
from smmix_pl.callbacks import NonFiniteGuard
from smmix_pl.mixing.regions import least_attended, most_attended


class Poison(Callback):
    """Makes the model's weights, and so the loss, or a gradient, wrong at given batches."""

    def __init__(self, batches, where="loss", value=float("nan")):
        self.batches, self.where, self.value = batches, where, value

    def on_before_backward(self, trainer, pl_module, loss):
        if trainer.fit_loop.batch_idx in self.batches and self.where == "loss":
            loss.data.fill_(self.value)
            pl_module.loss.fill_(self.value)

    def on_after_backward(self, trainer, pl_module):
        if trainer.fit_loop.batch_idx in self.batches:
            if self.where == "gradient":
                pl_module.backbone.model.head.weight.grad[0, 0] = self.value
            else:
                for weight in pl_module.parameters():
                    weight.grad.fill_(self.value)


def run(tmp_path, *callbacks, mixer=None, **options):
    seed_everything(0)
    fit = trainer(tmp_path, max_epochs=1, limit_train_batches=8, callbacks=list(callbacks))
    model = module(mixer or NoMix())
    fit.fit(model, digits(**options))
    return fit, model


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_wrong_number_stops_the_run_in_its_step(tmp_path, value, where):
    with pytest.raises(InputError) as told:
        run(tmp_path, Poison([5], where, value), NonFiniteGuard(), mixer=SMMix(switch_prob=1))
    sentence = str(told.value)
    assert "epoch 0, batch 5 (optimizer step 5" in sentence
    assert "mixed by SMMix, region side" in sentence
    assert "images #" in sentence
    assert ("loss is" if where == "loss" else "gradient of backbone.model.head.weight") in sentence


def test_the_images_named_are_those_of_the_batch(tmp_path):
    with pytest.raises(InputError) as told:
        run(tmp_path, Poison([1]), NonFiniteGuard(), batch_size=3)
    data = digits(batch_size=3)
    data.setup("fit")
    expected = list(data.train_dataloader().sampler)[3:6]
    assert ", ".join(f"#{index}" for index in expected) + ")" in str(told.value)


def test_a_skipped_step_leaves_the_weights_alone_and_is_counted(tmp_path):
    class Weights(Callback):
        def __init__(self):
            self.kept = []

        def on_train_batch_end(self, trainer, pl_module, *_):
            self.kept.append(pl_module.backbone.model.head.weight.detach().clone())

    weights = Weights()
    with pytest.warns(UserWarning, match=r"the step is skipped, the 2\. of this run"):
        fit, model = run(tmp_path, Poison([3, 6]), NonFiniteGuard("skip"), weights)
    same = [torch.equal(a, b) for a, b in zip(weights.kept, weights.kept[1:], strict=False)]
    assert [index + 1 for index, equal in enumerate(same) if equal] == [3, 6]
    assert float(fit.callback_metrics["train/skipped_steps"]) == 2
    assert all(weight.isfinite().all() for weight in model.parameters())


def test_skipping_for_ever_stops(tmp_path):
    with (
        pytest.warns(UserWarning, match="skipped"),
        pytest.raises(InputError, match="3 steps in a row"),
    ):
        run(tmp_path, Poison(range(8)), NonFiniteGuard("skip", patience=3))


def test_the_count_goes_on_after_a_resume():
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
    """A real gradient scaler, whose first scale is so large that gradients overflow."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
    model = scaled_fit(tmp_path, scaler, NonFiniteGuard())
    assert scaler.get_scale() < 2.0**127
    assert all(weight.isfinite().all() for weight in model.parameters())


def test_overflow_that_no_scale_ends_stops_the_run(tmp_path):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    with pytest.raises(InputError, match=r"head\.weight is not finite.*4 steps in a row"):
        scaled_fit(tmp_path, scaler, Poison(range(8), "gradient"), NonFiniteGuard(patience=4))


def test_images_are_named_by_their_place_in_train_where_some_are_held_out(tmp_path):
    with pytest.raises(InputError) as told:
        run(tmp_path, Poison([1]), NonFiniteGuard(), batch_size=3, held_out=0.5)
    data = digits(batch_size=3, held_out=0.5)
    data.setup("fit")
    loader = data.train_dataloader()
    kept = loader.dataset.images.indices
    expected = [kept[index] for index in list(loader.sampler)[3:6]]
    assert ", ".join(f"#{index}" for index in expected) + ")" in str(told.value)


WRONG = st.sampled_from([float("nan"), float("inf"), -float("inf"), 0.0, 0.25])


@given(st.data(), st.integers(2, 7), st.integers(2, 7))
def test_wrong_attention_never_leaves_the_grid(data, height, width):
    side = data.draw(st.integers(1, min(height, width) - 1))
    values = data.draw(st.lists(WRONG, min_size=height * width, max_size=height * width))
    for attention in (
        torch.tensor(values).view(1, height, width),
        torch.full((2, height, width), values[0]),
    ):
        for choose in (most_attended, least_attended):
            corners = choose(attention, side)
            assert (corners >= 0).all()
            assert (corners <= torch.tensor([height - side, width - side])).all()
