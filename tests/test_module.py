"""The LightningModule under a real Trainer, on real digits."""

import numpy as np
import pytest
import torch
from helpers.small_runs import digits, module, trainer
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from smmix_pl import (
    CutMix,
    InputError,
    MixPro,
    NoMix,
    SMMix,
    SMMixModule,
    TransMix,
)
from smmix_pl.callbacks import EMA, Calibration
from smmix_pl.data import TrainTransform
from smmix_pl.mixing import soft_labels

FINE_GRAINED = ("fine_grained_target", "fine_grained_source")


class Recorder(Callback):
    """Keeps what every training step logged."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append({key: float(v) for key, v in trainer.callback_metrics.items()})


@pytest.mark.parametrize(
    "mixer",
    [SMMix(), NoMix(), TransMix(), MixPro()],
    ids=lambda m: type(m).__name__,
)
def test_training_lowers_the_validation_loss(mixer, tmp_path):
    seed_everything(0)
    fit = trainer(tmp_path, max_epochs=16)
    model, data = module(mixer), digits()
    before = fit.validate(model, data, verbose=False)[0]
    fit.fit(model, data)
    after = fit.validate(model, data, verbose=False)[0]
    assert after["val/loss"] < before["val/loss"]
    assert after["val/top5"] >= after["val/top1"]


def test_what_a_batch_carries_decides_which_losses_exist(tiny_module):
    images = torch.randn(4, 3, 32, 32)
    labels = soft_labels(torch.arange(4), 10)

    def losses(mixer):
        mixed = mixer(images, labels, tiny_module.backbone, np.random.default_rng(0))
        return set(tiny_module.criterion.terms(mixed))

    assert losses(SMMix(switch_prob=1)) == {"classification", *FINE_GRAINED, "consistency"}
    assert losses(SMMix(switch_prob=1, consistency=False)) == {"classification", *FINE_GRAINED}
    assert losses(SMMix(switch_prob=1, fine_grained=False)) == {"classification", "consistency"}
    assert losses(SMMix(switch_prob=0)) == {"classification"}
    assert losses(CutMix()) == {"classification"}


@pytest.mark.parametrize("mixer", [SMMix(switch_prob=1), SMMix(switch_prob=0), CutMix(), NoMix()])
def test_every_step_gives_every_weight_a_gradient(tiny_module, mixer):
    """So DistributedDataParallel needs no search for unused parameters."""
    labels = soft_labels(torch.arange(4), 10)
    mixed = mixer(torch.randn(4, 3, 32, 32), labels, tiny_module.backbone, np.random.default_rng(0))
    sum(tiny_module.criterion.terms(mixed).values()).backward()
    assert all(parameter.grad is not None for parameter in tiny_module.parameters())


def test_data_of_other_classes_is_refused(tmp_path):
    with pytest.raises(InputError, match="the data has 10 classes and the model 7"):
        trainer(tmp_path, max_steps=1).fit(module(NoMix(), num_classes=7), digits())


def test_weights_scale_the_losses(tmp_path):
    recorder = Recorder()
    seed_everything(0)
    model = module(SMMix(switch_prob=1), fine_grained_weight=0.25, consistency_weight=2.0)
    trainer(tmp_path, max_steps=3, callbacks=[recorder]).fit(model, digits())
    for step in recorder.steps:
        expected = (
            step["train/loss_classification"]
            + 0.125 * step["train/loss_fine_grained_target"]
            + 0.125 * step["train/loss_fine_grained_source"]
            + 2.0 * step["train/loss_consistency"]
        )
        assert step["train/loss"] == pytest.approx(expected, rel=1e-5)


def test_weights_of_the_extra_losses_rise_by_epoch(tmp_path):
    recorder = Recorder()
    seed_everything(0)
    model = module(SMMix(switch_prob=1), consistency_weight=3.0, soft_start_epochs=2)
    trainer(tmp_path, max_epochs=4, limit_train_batches=2, callbacks=[recorder]).fit(
        model, digits()
    )
    for step, share in zip(recorder.steps, (0, 0, 0.5, 0.5, 1, 1, 1, 1), strict=True):
        fine_grained = sum(step[f"train/loss_{name}"] for name in FINE_GRAINED) / 2
        extra = fine_grained + 3 * step["train/loss_consistency"]
        expected = step["train/loss_classification"] + share * extra
        assert step["train/loss"] == pytest.approx(expected, rel=1e-5)


def mixing_of(tmp_path, seed, **arguments):
    recorder = Recorder()
    seed_everything(seed)
    trainer(tmp_path, max_epochs=2, limit_train_batches=6, callbacks=[recorder], **arguments).fit(
        module(SMMix()), digits()
    )
    return [step["train/lam"] for step in recorder.steps]


def test_mixing_follows_from_the_seed_and_differs_by_batch_and_epoch(tmp_path):
    once, again, other = (mixing_of(tmp_path, seed) for seed in (0, 0, 1))
    assert once == again != other
    assert len(set(once)) > 6


def test_accumulated_batches_mix_differently(tmp_path):
    """The global step stands still while gradients accumulate."""
    assert len(set(mixing_of(tmp_path, 0, accumulate_grad_batches=3))) > 6


def test_a_stopped_and_resumed_run_equals_the_straight_one(tmp_path):
    """Without random augmentation, whose generators a checkpoint does not hold."""
    plain = TrainTransform(
        scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=0.0, color_jitter=0.0, auto_augment=None
    )

    def fit(seed, ckpt_path=None):
        seed_everything(0)
        keep = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
        run = trainer(
            tmp_path,
            max_epochs=3,
            limit_train_batches=5,
            callbacks=[keep],
            enable_checkpointing=True,
        )
        model = module(SMMix())
        torch.manual_seed(seed)  # nothing may follow from the global generator's state
        data = digits(train_transform=plain)
        run.fit(model, data, ckpt_path=ckpt_path, weights_only=True)
        return model.state_dict()

    straight = fit(1)
    resumed = fit(2, tmp_path / "epoch=0.ckpt")
    for name, weight in straight.items():
        assert torch.equal(weight, resumed[name]), name


def test_weights_average_is_evaluated_and_saved(tmp_path):
    seed_everything(0)
    average = EMA(decay=0.5)
    keep = ModelCheckpoint(tmp_path, "ema", every_n_train_steps=3)
    run = trainer(tmp_path, max_steps=4, callbacks=[average, keep], enable_checkpointing=True)
    run.fit(module(SMMix()), digits())
    saved = torch.load(tmp_path / "ema.ckpt", weights_only=True)
    name = "backbone.model.head.weight"
    assert not torch.equal(saved["state_dict"][name], saved["current_model_state"][name])
    evaluated = module(NoMix())
    trainer(tmp_path).test(evaluated, digits(), ckpt_path=tmp_path / "ema.ckpt", verbose=False)
    assert torch.equal(evaluated.state_dict()[name], saved["state_dict"][name])


@pytest.mark.parametrize("evaluate", ["test", "validate"])
def test_weights_average_of_a_checkpoint_is_evaluated_by_the_trainer_that_fitted(
    evaluate, tmp_path
):
    seed_everything(0)
    keep = ModelCheckpoint(tmp_path, "ema", every_n_train_steps=3)
    callbacks = [EMA(decay=0.5), keep]
    run = trainer(tmp_path, max_steps=6, callbacks=callbacks, enable_checkpointing=True)
    run.fit(module(SMMix()), digits())
    path = keep.best_model_path
    [found] = getattr(run, evaluate)(module(NoMix()), digits(), ckpt_path=path, verbose=False)
    plain = trainer(tmp_path)
    [alone] = getattr(plain, evaluate)(module(NoMix()), digits(), ckpt_path=path, verbose=False)
    assert found == alone


def test_weights_and_their_average_are_both_validated(tmp_path):
    seed_everything(0)
    callbacks = [EMA(decay=0.9), ModelCheckpoint(tmp_path, "ema")]
    settings = {"max_epochs": 1, "limit_train_batches": 6, "enable_checkpointing": True}
    run = trainer(tmp_path, callbacks=callbacks, **settings)
    run.fit(module(NoMix()), digits())
    found = {key: float(value) for key, value in run.callback_metrics.items()}
    saved = torch.load(tmp_path / "ema.ckpt", weights_only=True)
    for key, stage in (("state_dict", "val"), ("current_model_state", "val_weights")):
        alone = module(NoMix())
        alone.load_state_dict(saved[key])
        plain = trainer(tmp_path, callbacks=[Calibration()])
        [expected] = plain.validate(alone, digits(), verbose=False)
        for measure in ("top1", "top5", "loss"):
            assert found[f"{stage}/{measure}"] == pytest.approx(expected[f"val/{measure}"])
        if stage == "val_weights":
            assert found["val_weights/ece"] == pytest.approx(expected["val/ece"])
    assert found["val/loss"] != found["val_weights/loss"]


def test_the_average_motivates_in_the_weights_place(tmp_path):
    def losses(*callbacks):
        recorder = Recorder()
        seed_everything(0)
        fit = trainer(tmp_path, max_steps=6, callbacks=[recorder, *callbacks])
        fit.fit(module(SMMix(switch_prob=1)), digits())
        return [step["train/loss_consistency"] for step in recorder.steps]

    weights = losses()
    assert losses(EMA(decay=0.9)) == weights
    assert losses(EMA(decay=0, motivates=True)) == weights  # an average over the last step alone
    averaged = losses(EMA(decay=0.9, motivates=True))
    assert averaged[:2] == weights[:2]  # the average begins as the weights after the first step
    assert set(averaged[2:]).isdisjoint(weights)


def test_a_checkpoint_loads_in_python(tmp_path):
    run = trainer(tmp_path, max_steps=1)
    model = module(SMMix())
    run.fit(model, digits())
    run.save_checkpoint(tmp_path / "model.ckpt")
    loaded = SMMixModule.load_from_checkpoint(tmp_path / "model.ckpt", mixer=NoMix()).eval()
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(loaded(images), model.eval()(images))


def test_repeated_augmentation_repeats_images(tmp_path):
    data = digits(repeats=3)
    data.setup("fit")
    order = list(data.train_dataloader().sampler)
    assert len(order) == len(data.train_dataloader().dataset)
    assert order[0] == order[1] == order[2] != order[3]
