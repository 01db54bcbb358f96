"""The LightningModule under a real Trainer, on real digits."""

import copy

import numpy as np
import pytest
import torch
from helpers.sampling import every
from helpers.small_runs import digits, module, trainer
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, IterableDataset

from smmix_pl import (
    CutMix,
    InputError,
    NoMix,
    SMMix,
    SMMixLoss,
    SMMixModule,
)
from smmix_pl.callbacks import EMA, Calibration
from smmix_pl.data import TrainTransform
from smmix_pl.losses import LossConfig
from smmix_pl.mixing import soft_labels

FINE_GRAINED = ("fine_grained_target", "fine_grained_source")


class Recorder(Callback):
    """Records what every training step logged."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append({key: float(v) for key, v in trainer.callback_metrics.items()})


class Stream(IterableDataset):
    """Images without a known length."""

    def __iter__(self):
        return ((torch.randn(3, 16, 16), index % 10) for index in range(256))


@pytest.mark.parametrize("length", [{"max_steps": 2}, {"max_epochs": 2}])
def test_data_without_a_length_needs_the_batches_per_epoch(tmp_path, length):
    images = DataLoader(Stream(), batch_size=64)
    with pytest.raises(InputError, match=r"trainer\.limit_train_batches="):
        trainer(tmp_path, limit_val_batches=0, **length).fit(module(NoMix()), images)
    run = trainer(tmp_path, limit_val_batches=0, limit_train_batches=2, **length)
    run.fit(module(NoMix()), images)
    assert run.global_step == length.get("max_steps", 4)


def test_training_lowers_the_validation_loss(tmp_path):
    seed_everything(0)
    fit = trainer(tmp_path, max_epochs=3)
    model, data = module(SMMix()), digits(cache="device")
    before = fit.validate(model, data, verbose=False)[0]
    fit.fit(model, data)
    after = fit.validate(model, data, verbose=False)[0]
    assert after["val/loss"] < before["val/loss"]
    assert after["val/top5"] >= after["val/top1"]


def test_what_a_batch_carries_decides_which_losses_exist(tiny_module):
    images = torch.randn(4, 3, 32, 32)
    labels = soft_labels(torch.arange(4), 10)

    def terms(mixer):
        mixed = mixer(images, labels, tiny_module.backbone, np.random.default_rng(0))
        return set(tiny_module.criterion.terms(mixed))

    assert terms(SMMix(switch_prob=1)) == {"classification", *FINE_GRAINED, "consistency"}
    assert terms(SMMix(switch_prob=1, consistency=False)) == {"classification", *FINE_GRAINED}
    assert terms(SMMix(switch_prob=1, fine_grained=False)) == {"classification", "consistency"}
    assert terms(SMMix(switch_prob=0)) == {"classification"}
    assert terms(CutMix()) == {"classification"}


@pytest.mark.parametrize("switch_prob", [0, 1])
def test_the_loss_of_a_step_is_that_of_smmix_loss_on_a_plain_backbone(switch_prob, tmp_path):
    """As a PyTorch loop would compute it: one batch, no dropout, no trainer."""
    outputs = []

    class Outputs(Callback):
        def on_train_batch_end(self, trainer, pl_module, step_output, batch, batch_idx):
            outputs.append((step_output["loss"], step_output["notes"], batch))

    seed_everything(0)
    model = module(SMMix(switch_prob=switch_prob))
    backbone = copy.deepcopy(model.backbone)
    trainer(tmp_path, max_steps=1, limit_val_batches=0, callbacks=[Outputs()]).fit(model, digits())
    [(loss, notes, (images, classes))] = outputs
    mixed = SMMix(switch_prob=switch_prob)(
        images, soft_labels(classes, 10, 0.1), backbone, np.random.default_rng((0, 0, 0))
    )
    assert notes == mixed.notes
    assert float(loss) == pytest.approx(float(SMMixLoss(backbone)(mixed)), rel=1e-5)


@pytest.mark.parametrize("mixer", [SMMix(switch_prob=1), SMMix(switch_prob=0), CutMix(), NoMix()])
def test_every_step_gives_every_weight_a_gradient(tiny_module, mixer):
    """DistributedDataParallel then needs no search for unused parameters."""
    labels = soft_labels(torch.arange(4), 10)
    mixed = mixer(torch.randn(4, 3, 32, 32), labels, tiny_module.backbone, np.random.default_rng(0))
    sum(tiny_module.criterion.terms(mixed).values()).backward()
    assert all(parameter.grad is not None for parameter in tiny_module.parameters())


def test_data_with_other_classes_is_rejected(tmp_path):
    with pytest.raises(InputError, match=r"model\.num_classes=7.* 10 "):
        trainer(tmp_path, max_steps=1).fit(module(NoMix(), num_classes=7), digits())


def test_weights_scale_the_losses(tmp_path):
    recorder = Recorder()
    seed_everything(0)
    model = module(SMMix(switch_prob=1), losses=LossConfig(fine_grained=0.25, consistency=2.0))
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
    model = module(SMMix(switch_prob=1), losses=LossConfig(consistency=3.0, soft_start_epochs=2))
    short = {"max_epochs": 4, "limit_train_batches": 2, "limit_val_batches": 0}
    trainer(tmp_path, **short, callbacks=[recorder]).fit(model, digits())
    for step, factor in zip(recorder.steps, (0, 0, 0.5, 0.5, 1, 1, 1, 1), strict=True):
        fine_grained = sum(step[f"train/loss_{name}"] for name in FINE_GRAINED) / 2
        extra = fine_grained + 3 * step["train/loss_consistency"]
        expected = step["train/loss_classification"] + factor * extra
        assert step["train/loss"] == pytest.approx(expected, rel=1e-5)


class Ratios(Callback):
    """Records the mixing ratio of every batch."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(float(outputs["lam"]))


def mixing_ratios(tmp_path, seed, **arguments):
    ratios = Ratios()
    seed_everything(seed)
    short = {"max_epochs": 2, "limit_train_batches": 6, "limit_val_batches": 0}
    trainer(tmp_path, **short, callbacks=[ratios], **arguments).fit(module(SMMix()), digits())
    return ratios.seen


def test_mixing_is_a_function_of_seed_epoch_and_batch(tmp_path):
    once, again, other = (mixing_ratios(tmp_path, seed) for seed in (0, 0, 1))
    assert once == again != other
    assert len(set(once)) > 6


def test_accumulated_batches_mix_differently(tmp_path):
    """The global step does not change while gradients accumulate."""
    assert len(set(mixing_ratios(tmp_path, 0, accumulate_grad_batches=3))) > 6


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    """Without random augmentation, whose generators are not in a checkpoint."""
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
            limit_val_batches=0,
            callbacks=[keep],
            enable_checkpointing=True,
        )
        model = module(SMMix())
        torch.manual_seed(seed)  # the state of the global generator must not matter
        data = digits(train_transform=plain)
        run.fit(model, data, ckpt_path=ckpt_path, weights_only=True)
        return model.state_dict()

    uninterrupted = fit(1)
    resumed = fit(2, tmp_path / "epoch=0.ckpt")
    for name, weight in uninterrupted.items():
        assert torch.equal(weight, resumed[name]), name


def test_averaged_weights_are_evaluated_and_saved(tmp_path):
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


@pytest.mark.parametrize("evaluate", every(2, ["test", "validate"]))
def test_the_trainer_that_fitted_evaluates_the_averaged_weights(evaluate, tmp_path):
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


def test_averaged_and_trained_weights_are_both_validated(tmp_path):
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
        for metric in ("top1", "top5", "loss"):
            assert found[f"{stage}/{metric}"] == pytest.approx(expected[f"val/{metric}"])
        if stage == "val_weights":
            assert found["val_weights/ece"] == pytest.approx(expected["val/ece"])
    assert found["val/loss"] != found["val_weights/loss"]


def test_averaged_weights_as_guide(tmp_path):
    def losses(*callbacks):
        recorder = Recorder()
        seed_everything(0)
        fit = trainer(tmp_path, max_steps=6, callbacks=[recorder, *callbacks])
        fit.fit(module(SMMix(switch_prob=1)), digits())
        return [step["train/loss_consistency"] for step in recorder.steps]

    weights = losses()
    assert losses(EMA(decay=0.9)) == weights
    assert losses(EMA(decay=0, as_guide=True)) == weights  # the average is the last step
    averaged = losses(EMA(decay=0.9, as_guide=True))
    assert averaged[:2] == weights[:2]  # the average starts at the first step
    assert set(averaged[2:]).isdisjoint(weights)


def test_a_checkpoint_loads_in_python(tmp_path):
    run = trainer(tmp_path, max_steps=1)
    model = module(SMMix(), losses=LossConfig(label_smoothing=0.2))
    run.fit(model, digits())
    run.save_checkpoint(tmp_path / "model.ckpt")
    loaded = SMMixModule.load_from_checkpoint(tmp_path / "model.ckpt", mixer=NoMix()).eval()
    assert loaded.loss_config == LossConfig(label_smoothing=0.2)
    assert loaded.optim == model.optim
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(loaded(images), model.eval()(images))
