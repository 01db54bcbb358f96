"""Out-of-distribution and corrupted test sets in their published layouts."""

import contextlib
import json
from importlib.resources import files
from io import BytesIO

import numpy as np
import pytest
import torch
from helpers.data_trees import devkit, jpeg, put, write_cifar_c
from helpers.digits import quiet_trainer
from helpers.programs import TINY_FLAGS
from helpers.sampling import every
from helpers.small_runs import TINY
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from sklearn.metrics import average_precision_score
from torch.nn import functional as F

from smmix_pl import Backbone, SMMix, SMMixModule
from smmix_pl.callbacks import FGSM, Calibration, CorruptionError, Occlusion, OutlierPrecision
from smmix_pl.callbacks.evaluation.corruption_error import mean_corruption_error
from smmix_pl.cli import check_data
from smmix_pl.cli import main as cli
from smmix_pl.data import (
    CIFAR10C,
    CIFAR100C,
    ImageNetA,
    ImageNetC,
    ImageNetO,
    ImageNetR,
    ImageNetReaL,
    ImageNetSketch,
    ImageNetV2,
)
from smmix_pl.data.datasets.corrupted import ALEXNET_ERRORS, CORRUPTIONS
from smmix_pl.data.datasets.imagenet import WORDNET_IDS
from smmix_pl.errors import InputError
from smmix_pl.reporting.metric_names import metric_name

SMALL = {"image_size": 32, "batch_size": 16, "num_workers": 0}
INFO = files("timm.data") / "_info"


def one_each(root, folders, name="image.jpg"):
    content = jpeg()
    for folder in folders:
        put(root / folder / name, content)
    return root


@pytest.mark.parametrize(("cls", "key"), [(ImageNetA, "a"), (ImageNetR, "r")])
def test_subsets_are_labeled_with_imagenets_indices(tmp_path, cls, key):
    wordnet_ids = (INFO / f"imagenet_{key}_synsets.txt").read_text().split()
    one_each(tmp_path / f"imagenet-{key}", wordnet_ids)
    data = cls(root=str(tmp_path), **SMALL)
    assert data.num_classes == 1000
    assert len(data.class_subset) == 200
    for source, label in data.samples("test"):
        assert source.split("/")[-2] == WORDNET_IDS[label]
    assert [label for _, label in data.samples("test")] == data.class_subset
    with pytest.raises(InputError, match=cls.__name__):
        data.setup("fit")


def test_sketch_and_v2_cover_all_classes(tmp_path):
    one_each(tmp_path / "sketch", WORDNET_IDS)
    one_each(tmp_path / "imagenetv2-matched-frequency-format-val", map(str, range(1000)))
    sketch, v2 = (
        ImageNetSketch(root=str(tmp_path), **SMALL),
        ImageNetV2(root=str(tmp_path), **SMALL),
    )
    assert sketch.class_subset is v2.class_subset is None
    assert [label for _, label in sketch.samples("test")] == list(range(1000))
    for source, label in v2.samples("test"):  # folders sort as text, labels are numbers
        assert int(source.split("/")[-2]) == label
    with pytest.raises(InputError, match=r"threshold0\.7"):
        ImageNetV2(variant="threshold0.7", root=str(tmp_path), **SMALL).prepare_data()


def test_real_labels_follow_the_file_name(tmp_path):
    real = json.loads((INFO / "imagenet_real_labels.json").read_text())
    for number, wordnet_id in enumerate(WORDNET_IDS, start=1):
        put(tmp_path / "val" / wordnet_id / f"ILSVRC2012_val_{number:08d}.JPEG")
    data = ImageNetReaL(root=str(tmp_path), **SMALL)
    data.setup("test")
    assert len(data.images("test", np.asarray)) == sum(bool(labels) for labels in real[:1000])
    _, right = next(iter(data.test_dataloader()))
    assert right.shape == (16, 1000)
    shown = [labels for labels in real[:1000] if labels][:16]
    assert [set(row.nonzero().flatten().tolist()) for row in right] == list(map(set, shown))


class Oracle(LightningModule):
    """Classifies the mean color: logit k is highest for the k-th level of gray."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def test_step(self, batch, batch_idx):
        images, classes = batch
        gray = (images.mean(dim=(1, 2, 3)) * 255).round()
        logits = -(gray[:, None] - torch.arange(self.classes)).abs()
        return {"logits": logits, "classes": classes}


def run(data, classes, callback):
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", callbacks=[callback], **options)
    trainer.test(Oracle(classes), data, verbose=False)
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize(("cls", "name"), [(CIFAR10C, "CIFAR-10-C"), (CIFAR100C, "CIFAR-100-C")])
def test_corruption_error_on_cifar(tmp_path, cls, name):
    write_cifar_c(tmp_path / name)
    plain = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    found = run(cls(root=str(tmp_path), **SMALL, **plain), 10, CorruptionError())
    for number, corruption in enumerate(CORRUPTIONS):
        assert found[f"test/error_{corruption}"] == pytest.approx(0.3 if number % 2 == 0 else 0)
    assert found["test/mCE"] == pytest.approx(0.3 * 8 / 15)


def test_imagenet_c_layout_and_its_reference(tmp_path):
    for severity in ("1", "3"):
        one_each(tmp_path / "fog" / severity, WORDNET_IDS)
    chosen = {"corruptions": ["fog"], "severities": (1, 3)}
    data = ImageNetC(**chosen, root=str(tmp_path), **SMALL)
    data.setup("test")
    assert data.test_names == [("fog", 1), ("fog", 3)]
    assert data.test_ends == [1000, 2000]
    assert len(data.test_dataloader().dataset) == 2000
    assert mean_corruption_error({"fog": 0.5}, data.reference_errors) == 0.5 / 0.819324
    assert mean_corruption_error(ALEXNET_ERRORS, ALEXNET_ERRORS) == pytest.approx(1)
    with pytest.raises(InputError, match="snow/1/"):
        ImageNetC(corruptions=["snow"], root=str(tmp_path), **SMALL).setup("test")
    with pytest.raises(InputError, match=r"data\.corruptions.*'snwo'.*snow"):
        ImageNetC(corruptions=["snwo"], root=str(tmp_path), **SMALL)
    with pytest.raises(InputError, match=r"data\.bad_images=skip"):
        ImageNetC(bad_images="skip", root=str(tmp_path), **SMALL)
    with pytest.raises(InputError, match=r"data\.severities=\[0\]"):
        ImageNetC(severities=(0,), root=str(tmp_path), **SMALL)


class Confident(LightningModule):
    """Predicts bright images with high confidence."""

    def test_step(self, batch, batch_idx):
        brightness = batch[0].mean(dim=(1, 2, 3))
        return {"logits": torch.stack([brightness, torch.zeros_like(brightness)], 1)}


def test_outliers_are_the_positives(tmp_path):
    def gray(level):
        buffer = BytesIO()
        Image.new("RGB", (32, 32), (level, level, level)).save(buffer, "PNG")
        return buffer.getvalue()

    for wordnet_id in WORDNET_IDS:
        put(tmp_path / "val" / wordnet_id / "v.png", gray(250))
    for number, wordnet_id in enumerate(WORDNET_IDS[10:14]):
        put(tmp_path / "imagenet-o" / wordnet_id / "o.png", gray([200, 150, 255, 180][number]))
    data = ImageNetO(root=str(tmp_path), mean=(0.0,) * 3, std=(0.1,) * 3, **SMALL)
    assert data.num_classes == 1000
    assert [label for _, label in data.samples("test")] == [10, 11, 12, 13, -1, -1, -1, -1]
    assert data.class_subset == [10, 11, 12, 13]
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", callbacks=[OutlierPrecision()], **options)
    trainer.test(Confident(), data, verbose=False)
    # Three outliers rank first; the one that is brighter than all known images ranks last, of 8.
    expected = 3 / 4 * 1 + 1 / 4 * 4 / 8
    assert float(trainer.callback_metrics["test/AUPR"]) == pytest.approx(expected, abs=1e-3)


@pytest.fixture
def thousand():
    """A model that prefers an ImageNet class absent from ImageNet-A, then one in it."""
    torch.manual_seed(0)
    module = SMMixModule(
        num_classes=1000,
        image_size=(32, 32),
        batch_size=16,
        mixer=SMMix(),
        backbone="vit_tiny_patch16_224",
        backbone_args=TINY,
    )
    module.backbone.model.head.bias.data.normal_().mul_(0.1)
    module.backbone.model.head.bias.data[[0, 6]] = torch.tensor([20.0, 10.0])
    return module


def logits_and_labels(module, data):
    """Return the logits of the backbone on a test set."""
    data.setup("test")
    batches = [data.on_after_batch_transfer(batch, 0) for batch in data.test_dataloader()]
    with torch.no_grad():
        logits = torch.cat([module.backbone.eval()(images) for images, _ in batches])
    return logits, torch.cat([labels for _, labels in batches])


def found_by(module, data, *callbacks):
    [found] = quiet_trainer(*callbacks).test(module, data, verbose=False)
    return found


def test_a_subset_is_evaluated_among_its_own_classes(tmp_path, thousand):
    """Accuracy, loss, and every evaluation ignore the other 800 outputs."""
    one_each(tmp_path / "imagenet-a", (INFO / "imagenet_a_synsets.txt").read_text().split())
    data = ImageNetA(root=str(tmp_path), **SMALL)
    assert 0 not in data.class_subset
    assert 6 in data.class_subset
    callbacks = Calibration(), Occlusion(ratios=(1.0,)), FGSM(eps=(1.0,))
    found = found_by(thousand, data, *callbacks)
    logits, labels = logits_and_labels(thousand, data)
    logits = logits[:, data.class_subset]
    own = torch.tensor([data.class_subset.index(label) for label in labels.tolist()])
    probability = logits.softmax(dim=1)
    gaps = F.one_hot(own, 200) - probability
    assert found["test/loss"] == pytest.approx(F.cross_entropy(logits, own).item())
    assert found["test/nll"] == pytest.approx(found["test/loss"])
    for name in ("test/top1", "test/occlusion_100"):
        assert found[name] == pytest.approx(1 / 200)
    right = logits.topk(5).indices == own[:, None]
    assert found["test/top5"] == pytest.approx(right.any(dim=1).float().mean().item())
    assert found["test/brier"] == pytest.approx(gaps.square().sum(dim=1).mean().item(), abs=1e-5)
    # one bin per class: all but one hold one image in 200
    assert 0.2 * found["test/classwise_ece"] < 2 / 200 < 5 * found["test/classwise_ece"]
    thousand_way = found_by(thousand, one_each_v2(tmp_path), Calibration())
    assert thousand_way["test/top1"] == pytest.approx(1 / 1000)


def one_each_v2(root):
    one_each(root / "imagenetv2-matched-frequency-format-val", map(str, range(1000)))
    return ImageNetV2(root=str(root), **SMALL | {"batch_size": 250})


def test_any_of_several_classes_is_correct(tmp_path, thousand):
    """ReaL: a prediction is correct if the label contains it."""
    for number in range(1, 101):
        put(tmp_path / "val" / f"ILSVRC2012_val_{number:08d}.JPEG", jpeg(number))
    devkit(tmp_path, WORDNET_IDS, 100 * [1])
    data = ImageNetReaL(root=str(tmp_path), **SMALL | {"batch_size": 100})
    labels = torch.stack([right for _, right in data.images("test", np.asarray)])
    often = labels.sum(dim=0).argmax()
    thousand.backbone.model.head.bias.data[often] = 30.0
    found = found_by(thousand, data, Calibration(), Occlusion(ratios=(0.5,)))
    logits, again = logits_and_labels(thousand, data)
    assert torch.equal(labels, again)
    right = labels.gather(1, logits.argmax(dim=1, keepdim=True)).float().mean().item()
    assert right > 1 / len(labels)
    assert found["test/top1"] == pytest.approx(right)
    assert found["test/occlusion_50"] == pytest.approx(right)
    among = labels.gather(1, logits.topk(5).indices).any(dim=1).float().mean().item()
    assert found["test/top5"] == pytest.approx(among)
    likeliest = logits.log_softmax(dim=1).masked_fill(~labels, -torch.inf).amax(dim=1)
    assert found["test/loss"] == pytest.approx(-likeliest.mean().item())


def test_outliers_affect_only_their_own_metric(tmp_path, thousand):
    one_each(tmp_path / "val", WORDNET_IDS)
    for number, wordnet_id in enumerate(WORDNET_IDS[6:46]):
        put(tmp_path / "imagenet-o" / wordnet_id / "o.JPEG", jpeg(number))
    data = ImageNetO(root=str(tmp_path), **SMALL)
    found = found_by(thousand, data, OutlierPrecision(), Calibration(), Occlusion(ratios=(0.5,)))
    logits, labels = logits_and_labels(thousand, data)
    logits = logits[:, data.class_subset]
    known = labels >= 0
    assert known.tolist() == [True] * 40 + [False] * 40
    loss = F.cross_entropy(logits[known], labels[known] - 6)
    assert found["test/loss"] == pytest.approx(loss.item())
    assert found["test/nll"] == pytest.approx(loss.item())
    for name in ("test/top1", "test/occlusion_50"):
        assert found[name] == pytest.approx(1 / 40)
    uncertainty = 1 - logits.double().softmax(dim=1).amax(dim=1)
    expected = average_precision_score(~known, uncertainty)
    assert found["test/AUPR"] == pytest.approx(expected, abs=1e-4)


def test_metrics_refuse_unsuitable_datasets(tmp_path, thousand):
    data = one_each_v2(tmp_path)
    for callback in (CorruptionError(), OutlierPrecision()):
        with pytest.raises(InputError, match="ImageNetV2"):
            found_by(thousand, data, callback)


def test_negative_labels_are_refused_without_outliers(tmp_path):
    write_cifar_c(tmp_path / "CIFAR-10-C")
    np.save(tmp_path / "CIFAR-10-C" / "labels.npy", np.tile(np.arange(10) - 1, 5))
    with pytest.raises(InputError, match=r"label -1.*10 classes"):
        CIFAR10C(root=str(tmp_path), **SMALL).setup("test")


def overlay_tree(root, name):
    """Write the smallest dataset for an overlay, and return the extra flags of its command."""
    if name in ("imagenet_a", "imagenet_r"):
        key = name[-1]
        ids = (INFO / f"imagenet_{key}_synsets.txt").read_text().split()
        one_each(root / f"imagenet-{key}", ids)
    elif name == "imagenet_v2":
        one_each(root / "imagenetv2-matched-frequency-format-val", map(str, range(1000)))
    elif name == "imagenet_sketch":
        one_each(root / "sketch", WORDNET_IDS)
    elif name == "imagenet_o":
        one_each(root / "val", WORDNET_IDS)
        one_each(root / "imagenet-o", WORDNET_IDS[:200])
    elif name == "imagenet_real":
        for number, wordnet_id in enumerate(WORDNET_IDS, start=1):
            put(root / "val" / wordnet_id / f"ILSVRC2012_val_{number:08d}.JPEG")
    elif name == "imagenet_c":
        one_each(root / "fog" / "1", WORDNET_IDS)
        return ["--data.corruptions=[fog]", "--data.severities=[1]"]
    else:
        write_cifar_c(root / {"cifar10_c": "CIFAR-10-C", "cifar100_c": "CIFAR-100-C"}[name])
    return []


OWN_METRICS = {"imagenet_c": "mCE", "cifar10_c": "mCE", "cifar100_c": "mCE", "imagenet_o": "AUPR"}


@pytest.mark.parametrize(
    "name",
    every(
        4,
        (
            *("imagenet_a", "imagenet_r", "imagenet_v2", "imagenet_sketch", "imagenet_o"),
            *("imagenet_real", "imagenet_c", "cifar10_c", "cifar100_c"),
        ),
    ),
)
def test_every_overlay_tests_and_passes_the_check(tmp_path, monkeypatch, capsys, name):
    """`smmix test --config deit_t.yaml --config data/NAME.yaml`, and the pre-flight check."""
    monkeypatch.chdir(tmp_path)
    more = overlay_tree(tmp_path, name)
    evaluations = ["--config", "with/eval.yaml"] if name == "imagenet_a" else []
    words = ["test", "--config", "deit_t.yaml", "--config", f"data/{name}.yaml", *evaluations]
    words += ["--data.root", str(tmp_path), *more, *TINY_FLAGS, "--trainer.limit_test_batches=2"]
    words += [
        "--data.batch_size=4" if evaluations else "--data.batch_size=25",
        "--trainer.enable_progress_bar=false",
    ]
    words += ["--trainer.precision=32", "--trainer.logger=false"]
    classes = {"cifar10_c": 10, "cifar100_c": 100}.get(name, 1000)
    args = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}  # as TINY_FLAGS
    weights = Backbone("vit_tiny_patch16_224", classes, 32, model_args=args).model.state_dict()
    torch.save(weights, "weights.pth")
    cli.main([*words, "--model.init_from=weights.pth"])
    output = capsys.readouterr().out
    for metric in ("top1", OWN_METRICS.get(name, "top1")):
        assert metric_name(metric) in output
    if name in ("imagenet_r", "imagenet_c", "imagenet_o", "cifar10_c"):
        # ImageNet-R has a published size, which the generated folder does not reach.
        smaller = name == "imagenet_r"
        with pytest.raises(SystemExit) if smaller else contextlib.nullcontext():
            check_data.main(["--config", f"data/{name}.yaml", "--data.root", str(tmp_path), *more])
        output = capsys.readouterr().out
        assert "train:" not in output
        assert "without images" not in output
        found = [line for line in output.splitlines() if "bad:" in line]
        assert len(found) == smaller
        assert all("expected" in line for line in found)
