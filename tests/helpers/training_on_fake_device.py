"""Training and evaluation on a device whose tensors cannot be combined with those of the CPU.

Run by test_other_device.py in a process of its own, because torch counts its devices only once, at
the first backward pass.
"""

import numpy as np
import pytest
import torch
from lightning.pytorch import seed_everything

from helpers.data_trees import coco, write_cifar_c
from helpers.small_runs import digits, module, trainer
from smmix_pl import callbacks, mixing
from smmix_pl.callbacks import EMA
from smmix_pl.data import CIFAR10C, COCOObjects
from smmix_pl.mixing import Mixer, MixPro, SMMix

pytest.importorskip(
    "helpers.fake_device", reason="needs a torch that supports devices written in Python"
)
from helpers.fake_device import elsewhere

MIXERS = [
    made()
    for made in vars(mixing).values()
    if isinstance(made, type) and issubclass(made, Mixer) and made not in (Mixer, MixPro)
]
MIXERS += [
    MixPro(cell_side=2),  # for a 4 x 4 grid
    SMMix(switch_prob=1),
    SMMix(switch_prob=1, per_sample_side=True),
    SMMix(switch_prob=1, region_choice="random"),
]
UNSUITABLE = (
    *(callbacks.Evaluation, callbacks.ProgressLines, callbacks.ThrottledProgressBar),
    callbacks.GradualUnfreezing,  # measures nothing, and needs more epochs
    callbacks.AutoAttack,  # its library formats tensors, which such a device does not support
)
DATASET_SPECIFIC = (
    callbacks.CorruptionError,
    callbacks.DetectionPictures,
    callbacks.GuideQuality,
    callbacks.Localization,
    callbacks.OutlierPrecision,
    callbacks.SegmentationPictures,
)
CALLBACKS = [
    made
    for made in vars(callbacks).values()
    if isinstance(made, type) and made not in (*UNSUITABLE, *DATASET_SPECIFIC)
]


def run(tmp_path, mixer, **arguments):
    """Return a module and a trainer for a few batches."""
    seed_everything(0)
    settings = {"accelerator": "auto", "max_epochs": 2, "log_every_n_steps": 1}
    # In inference mode, composite operations arrive undivided, with moves between devices inside
    settings |= {"inference_mode": False, "limit_test_batches": 2}
    settings |= {"limit_train_batches": 2, "limit_val_batches": 1}
    return module(mixer), trainer(tmp_path, **(settings | arguments))


def test_operations_on_two_devices_are_rejected():
    with elsewhere() as strategy:
        away = torch.ones(3, device=strategy.root_device)
        assert (2 * away).device == strategy.root_device
        with pytest.raises(RuntimeError, match="two devices"):
            away + torch.ones(3)
        with pytest.raises(TypeError, match="numpy"):
            away.numpy()


@pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: type(mixer).__name__)
def test_every_mixer_trains(mixer, tmp_path):
    with elsewhere() as strategy:
        model, fit = run(tmp_path, mixer, strategy=strategy, max_epochs=1, limit_val_batches=1)
        fit.fit(model, digits(batch_size=16))
    assert fit.callback_metrics["train/loss"] > 0


def test_every_callback_measures_the_same(tmp_path):
    with elsewhere() as strategy:
        callbacks = [callback() for callback in CALLBACKS]
        model, fit = run(tmp_path / "there", SMMix(), strategy=strategy, callbacks=callbacks)
        fit.fit(model, digits(batch_size=16))
        [there] = fit.test(model, digits(batch_size=16), verbose=False)
    callbacks = [callback() for callback in CALLBACKS]
    model, fit = run(tmp_path / "here", SMMix(), callbacks=callbacks)
    fit.fit(model, digits(batch_size=16))
    [here] = fit.test(model, digits(batch_size=16), verbose=False)
    # Attention is fused on the CPU only, so one of 128 images may be classified differently
    assert here == pytest.approx(there, rel=1e-3, abs=0.03)
    assert len(here) > len(CALLBACKS)


def test_metrics_of_corrupted_images_and_outliers_are_the_same(tmp_path):
    write_cifar_c(tmp_path / "CIFAR-10-C")
    corrupted = CIFAR10C(root=str(tmp_path), image_size=16, batch_size=16, num_workers=0)

    class WithOutliers(CIFAR10C):
        class_subset = list(range(1, 10))  # noqa: RUF012
        has_outliers = True

    write_cifar_c(tmp_path / "o" / "CIFAR-10-C")
    outliers = WithOutliers(
        corruptions=["fog"], root=str(tmp_path / "o"), image_size=16, batch_size=16, num_workers=0
    )
    labels = np.tile(np.arange(10), 5)
    np.save(tmp_path / "o" / "CIFAR-10-C" / "labels.npy", np.where(labels == 0, -1, labels))
    for data, score in (
        (corrupted, callbacks.CorruptionError),
        (outliers, callbacks.OutlierPrecision),
    ):
        with elsewhere() as strategy:
            model, there = run(tmp_path, SMMix(), strategy=strategy, callbacks=[score()])
            [found] = there.test(model, data, verbose=False)
        model, here = run(tmp_path, SMMix(), callbacks=[score()])
        assert here.test(model, data, verbose=False)[0] == pytest.approx(found, abs=1e-3)


def test_objects_are_localized_with_states_on_the_device(tmp_path):
    """A process group of GPUs alone reduces no state that is on the CPU."""
    data = COCOObjects(root=str(coco(tmp_path)), image_size=16, batch_size=2, num_workers=0)
    with elsewhere() as strategy:
        there = callbacks.Localization(thresholds=5)
        _, run_there = run(tmp_path, SMMix(), strategy=strategy, callbacks=[there])
        [found] = run_there.test(module(SMMix(), num_classes=2), data, verbose=False)
        metrics = (*there.jaccard.values(), *there.boxes.values())
        assert {metric.images.device for metric in metrics} == {strategy.root_device}
    _, here = run(tmp_path, SMMix(), callbacks=[callbacks.Localization(thresholds=5)])
    [expected] = here.test(module(SMMix(), num_classes=2), data, verbose=False)
    assert found == pytest.approx(expected, abs=1e-3)


def test_averaged_weights_can_guide(tmp_path):
    with elsewhere() as strategy:
        average = EMA(decay=0.9, as_guide=True)
        model, fit = run(tmp_path, SMMix(), strategy=strategy, callbacks=[average])
        fit.fit(model, digits(batch_size=16))
    assert "val_weights/top1" in fit.callback_metrics
