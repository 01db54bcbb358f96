"""Classification with several labels per image, through the command line."""

import csv
import json

import numpy as np
import pytest
import torch
from helpers.programs import TINY_FLAGS, refusal, run_here
from helpers.sampling import every
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score
from torch.nn.functional import binary_cross_entropy

from smmix_pl import InputError, SMMix
from smmix_pl.cli.main import main
from smmix_pl.data import LabelFile
from smmix_pl.downstream import MultiLabel
from smmix_pl.metrics.label_scores import BestThresholds, LabelCalibration

COLORS = {"blue": 2, "green": 1, "red": 0}
FIT = (
    *("fit", "--config", "downstream/multi_label.yaml", "--model.pretrained=false", *TINY_FLAGS),
    *("--data.batch_size=8", "--trainer.max_epochs=2", "--name=many"),
    *("--trainer.log_every_n_steps=1", "--model.optim.lr=0.06", "--model.mixer.switch_prob=1"),
    *("--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.save_top_k=-1"),
    *("--trainer.callbacks.filename={epoch}", "--trainer.callbacks.monitor=val/loss"),
)


def write_images(root, split="train", count=24, seed=0):
    """Write images whose bright channels are their labels, and return path and labels of each."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        labels = [name for name in COLORS if rng.random() < (0.15 if name == "red" else 0.5)]
        pixels = rng.integers(0, 80, (40, 40, 3), dtype=np.uint8)
        for name in labels:
            pixels[..., COLORS[name]] += 150
        path = f"images/{split}_{number}.png"
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / path)
        rows.append((path, labels))
    return rows


def write_csv(file, rows):
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerows([("path", "labels"), *((path, "|".join(names)) for path, names in rows)])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    write_csv(folder / "train.csv", write_images(folder))
    rows = write_images(folder, "val", 17, seed=1)
    write_csv(folder / "val.csv", rows)
    content = [{"path": path, "labels": labels} for path, labels in rows]
    (folder / "val.json").write_text(json.dumps(content))
    return folder


def data(root, **options):
    return LabelFile(root=str(root), image_size=32, batch_size=8, num_workers=0, **options)


def test_csv_and_json_list_the_same_images(root):
    read = {}
    for name in ("val.csv", "val.json"):
        module = data(root, val=name)
        module.setup("validate")
        images = module.images("val", lambda image: torch.zeros(1))
        read[name] = [images[index][1].tolist() for index in range(len(images))]
    assert module.class_names == ["blue", "green", "red"]
    assert read["val.csv"] == read["val.json"]
    expected = [[color in labels for color in COLORS] for _, labels in module.rows("val")]
    assert read["val.csv"] == expected
    assert [False] * 3 in expected  # an image without labels


def test_a_split_holds_out_every_label(root):
    module = data(root, held_out=0.4)
    module.setup("fit")
    [batch] = [module.collate([module._sets["val"][i] for i in range(module.counts["val"])])[0]]
    assert batch[1].any(dim=0).all()
    assert module.label_counts().sum() + batch[1].sum() == sum(
        len(labels) for _, labels in module.rows("train")
    )


def test_balanced_sampling_draws_rare_labels_as_often(root):
    module = data(root, balanced=True)
    module.setup("fit")
    sampler = module.train_dataloader().sampler
    drawn = []
    for epoch in range(40):
        sampler.set_epoch(epoch)
        drawn += [module.train_classes[index] for index in sampler]
    classes, counts = np.unique(drawn, return_counts=True)
    assert counts.min() > 0.7 * counts.max()
    assert set(classes) == set(module.train_classes)
    sampler.set_epoch(3)
    again = list(map(int, sampler))
    sampler.set_epoch(3)
    assert again == list(map(int, sampler))


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    """Folder of a run of two epochs and its test."""
    folder = tmp_path_factory.mktemp("run")
    run_here(*FIT, f"--data.root={root}", cwd=folder)
    return folder / "runs/many/version_0"


def test_a_run_logs_its_metrics(run):
    results = json.loads((run / "results.json").read_text())
    assert {"map", "f1_micro", "f1_macro", "label_ece", "loss"} <= results["metrics"].keys()
    with (run / "metrics.csv").open() as file:
        columns = next(csv.reader(file))
    assert {"val/map", "train/loss_consistency", "train/loss_fine_grained_source"} <= set(columns)


def test_the_test_equals_sklearn(run, root):
    model = MultiLabel.load_from_checkpoint(run / "checkpoints/best.ckpt", mixer=SMMix()).eval()
    module = data(root)
    module.setup("test")
    batches = [module.on_after_batch_transfer(batch, 0) for batch in module.test_dataloader()]
    with torch.no_grad():
        probabilities = torch.cat([model(images).sigmoid() for images, _ in batches]).numpy()
    labels = torch.cat([labels for _, labels in batches]).numpy()
    metrics = json.loads((run / "results.json").read_text())["metrics"]
    found = {name: metrics[name]["value"] for name in ("map", "f1_micro", "f1_macro")}
    predicted = probabilities > model.thresholds.numpy()
    assert found["map"] == pytest.approx(average_precision_score(labels, probabilities), abs=1e-3)
    for average in ("micro", "macro"):
        expected = f1_score(labels, predicted, average=average, zero_division=0)
        assert found[f"f1_{average}"] == pytest.approx(expected, abs=1e-3)


def test_calibration_fits_the_sigmoids_and_keeps_the_predicted_labels(run, root, tmp_path):
    best, calibrated = run / "checkpoints/best.ckpt", tmp_path / "calibrated.ckpt"
    assert "label ECE" in run_here("calibrate", best, "--output", calibrated, cwd=run.parents[2])
    module = data(root)
    module.setup("validate")
    batches = [module.on_after_batch_transfer(batch, 0) for batch in module.val_dataloader()]
    labels = torch.cat([labels for _, labels in batches]).float()
    nlls, predicted = [], []
    for file in (best, calibrated):
        model = MultiLabel.load_from_checkpoint(file, mixer=SMMix()).eval()
        with torch.no_grad():
            probabilities = torch.cat([model(images).sigmoid() for images, _ in batches])
        nlls.append(binary_cross_entropy(probabilities, labels))
        predicted.append(probabilities > model.thresholds)
    assert nlls[1] < nlls[0] - 1e-3
    assert torch.equal(*predicted)


def test_a_run_resumes_exactly(run, root, tmp_path):
    first = run / "checkpoints/epoch=0.ckpt"
    words = (f"--data.root={root}", "--test_after_fit=false", f"--ckpt_path={first}")
    run_here(*FIT, *words, cwd=tmp_path)
    [resumed] = tmp_path.rglob("last.ckpt")
    complete, resumed = (
        torch.load(path, weights_only=True)["state_dict"]
        for path in (run / "checkpoints/last.ckpt", resumed)
    )
    assert all(torch.equal(value, resumed[name]) for name, value in complete.items())


def test_an_average_of_the_weights_keeps_the_chosen_thresholds(root, tmp_path):
    words = ("--trainer.callbacks+=smmix_pl.callbacks.EMA", "--trainer.callbacks.decay=0.5")
    more = ("--trainer.callbacks.validate_weights=false", "--test_after_fit=false")
    run_here(*FIT, f"--data.root={root}", *words, *more, cwd=tmp_path)
    [last] = tmp_path.rglob("last.ckpt")
    content = torch.load(last, weights_only=True)
    chosen = content["current_model_state"]["thresholds"]
    assert torch.equal(content["state_dict"]["thresholds"], chosen)
    assert len(chosen.unique()) > 1  # all are equal before the first validation


def test_thresholds_are_those_with_the_best_f1():
    rng = torch.Generator().manual_seed(0)
    probabilities = torch.rand(200, 4, generator=rng)
    labels = torch.rand(200, 4, generator=rng) < probabilities**2
    labels[:, 3] = False
    metric = BestThresholds(4)
    for part in range(0, 200, 50):
        metric.update(probabilities[part : part + 50], labels[part : part + 50])
    found = metric.compute()
    candidates = np.arange(1, 100) / 100
    for label in range(3):
        scores = [f1_score(labels[:, label], probabilities[:, label] > t) for t in candidates]
        at_found = f1_score(labels[:, label], probabilities[:, label] > float(found[label]))
        assert at_found == pytest.approx(max(scores))
    assert found[3] == 0.5


def test_calibration_is_the_mean_over_labels():
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.9, 0.3], [0.9, 0.3]])
    labels = torch.tensor([[1, 0], [1, 0], [1, 1], [0, 0]]).bool()
    metric = LabelCalibration(2, n_bins=10)
    metric.update(probabilities, labels)
    first, second = abs(0.9 - 0.75), 0.5 * 0.1 + 0.5 * abs(0.3 - 0.5)
    assert metric.compute().item() == pytest.approx((first + second) / 2)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("train.csv", "", "train.csv"),
        ("train.csv", "file,labels\na.png,red\n", "train.csv"),
        ("train.csv", "path,labels\n,red\n", "train.csv"),
        ("train.csv", "path,labels\n../a.png,red\nb.png,blue\n", "../a.png"),
        ("train.csv", "path,labels\n/etc/passwd,red\nb.png,blue\n", "/etc/passwd"),
        ("train.csv", "path,labels\na.png,red\na.png,blue\n", "a.png"),
        ("train.csv", "path,labels\na.png,red\nb.png,red\n", "red"),
        ("train.csv", "path,labels\na.png,red\nb.png,\x00\n", "train.csv"),
        ("train.json", "{}", "train.json"),
        ("train.json", '[{"path": "a.png"}]', "train.json"),
        ("train.json", '[{"path": "a.png", "labels": [1]}]', "train.json"),
        ("train.json", "[", "train.json"),
        ("val.csv", "path,labels\nimages/val_0.png,pink\n", "pink"),
        ("val.csv", None, "val.csv"),
    ],
)
def test_a_malformed_file_is_named(name, content, named, root, tmp_path):
    for file in ("train.csv", "val.csv", "images"):
        (tmp_path / file).symlink_to(root / file)
    (tmp_path / name).unlink(missing_ok=True)
    if content is not None:
        (tmp_path / name).write_text(content)
    module = data(tmp_path, **{name.split(".")[0]: name})
    with pytest.raises(InputError) as error:
        module.setup("fit")
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("options", "named"),
    every(
        2,
        [
            (["--model.losses.classification=cross_entropy"], "model.losses.classification"),
            (["--model.threshold=1.5"], "model.threshold=1.5"),
            (["--data=smmix_pl.Digits"], "LabelFile"),
            (["--trainer.callbacks+=smmix_pl.callbacks.EMA"], "EMA.validate_weights=true"),
            (["--trainer.callbacks+=smmix_pl.callbacks.Calibration"], "Calibration"),
        ],
    ),
)
def test_unsuitable_options_are_named(options, named, root, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert named in refusal(main, [*FIT, f"--data.root={root}", *options], capsys)
