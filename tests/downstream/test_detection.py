"""Object detection: detectors, average precision, and a run from the command line."""

import csv
import json
import sys

import pytest
import torch
from helpers.coco_scenes import change_annotation, write_scenes
from helpers.programs import refusal, run_here
from helpers.small_backbones import SMALL
from PIL import Image

from smmix_pl import InputError
from smmix_pl.cli.main import main
from smmix_pl.data import COCO
from smmix_pl.downstream import ObjectDetection
from smmix_pl.metrics.average_precision import AveragePrecision

FEW = {
    "rpn_pre_nms_top_n_train": 50,
    "rpn_post_nms_top_n_train": 50,
    "rpn_pre_nms_top_n_test": 50,
    "rpn_post_nms_top_n_test": 50,
    "rpn_batch_size_per_image": 64,
    "box_batch_size_per_image": 16,
    "box_detections_per_img": 8,
}
"""Fewer proposals than torchvision's Mask R-CNN has."""
ARGUMENTS = {"mask_rcnn": FEW, "retinanet": {"score_thresh": 0.01}}
VIT = {"patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2}


def module(detector="mask_rcnn", backbone="vit_tiny_patch16_224", args=VIT, size=64, **options):
    torch.manual_seed(0)
    settings = {"detector_args": ARGUMENTS[detector], "backbone_args": args} | options
    return ObjectDetection(*(3, (size, size), 2), backbone=backbone, detector=detector, **settings)


def target(*boxes, size=(64, 64), labels=None):
    """Return a target with filled boxes as masks."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = 1
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels or [0] * len(boxes), dtype=torch.long),
        "masks": masks,
    }


@pytest.mark.parametrize("detector", ARGUMENTS)
@pytest.mark.parametrize("name", SMALL)
def test_every_family_trains_and_detects(name, detector):
    """Images differ in size, and one has no object."""
    model = module(detector, name, SMALL[name], norm_maps=True)
    images = [torch.randn(3, 64, 64), torch.randn(3, 40, 56)]
    truth = [target((4, 4, 40, 44), (30, 10, 60, 60), labels=[2, 1]), target(size=(40, 56))]
    named = model.head(images, truth)
    assert len(named) == (5 if detector == "mask_rcnn" else 2)
    assert all(value.isfinite() for value in named.values())
    sum(named.values()).backward()
    # DistributedDataParallel needs all gradients
    assert all(weight.grad is not None for weight in model.parameters())
    [found] = model.eval()(images[1:])
    count = len(found["boxes"])
    assert count
    assert found["scores"].shape == found["labels"].shape == (count,)
    assert set(found["labels"].tolist()) <= {0, 1, 2}
    assert bool((found["boxes"] <= torch.tensor([56, 40, 56, 40])).all())
    assert ("masks" in found) == (detector == "mask_rcnn")
    if "masks" in found:
        assert found["masks"].shape == (count, 40, 56)


def test_the_padding_of_a_batch_does_not_move_regions():
    """torchvision infers the strides of the maps from images, wrongly if they are padded."""
    model = module().eval()
    wide, whole = torch.randn(3, 20, 64), torch.randn(3, 64, 64)
    before = model([whole])[0]
    again = module().eval()
    again([wide])
    after = again([whole])[0]
    assert torch.equal(before["boxes"], after["boxes"])
    assert len(before["boxes"])


def test_a_frozen_backbone_does_not_change():
    model = module(frozen=True).train()
    named = model.head([torch.randn(3, 64, 64)], [target((4, 4, 40, 44), labels=[1])])
    sum(named.values()).backward()
    assert not model.backbone.model.training
    assert all(weight.grad is None for weight in model.backbone.model.parameters())
    assert any(weight.grad is not None for weight in model.backbone.scales.parameters())


def test_boxes_are_in_float32_under_bfloat16():
    model = module("retinanet").eval()
    image = torch.randn(3, 64, 64)
    exact = model([image])[0]
    with torch.autocast("cpu", torch.bfloat16):
        found = model([image])[0]
    assert found["boxes"].dtype == found["scores"].dtype == torch.float32
    assert len(found["boxes"]) == len(exact["boxes"])
    assert found["scores"].allclose(exact["scores"], atol=0.02)


def evaluated(predictions, targets):
    metric = AveragePrecision(masks=True)
    sizes = [one["masks"].flatten(1).sum(dim=1).float() for one in targets]
    full = [{**one, "area": area} for one, area in zip(targets, sizes, strict=True)]
    metric.update(
        [one | {"masks": one["masks"].bool()} for one in predictions],
        [{"iscrowd": torch.zeros_like(one["labels"])} | one for one in full],
    )
    return {name: float(value) for name, value in metric.compute().items()}


def test_average_precision_of_known_predictions():
    size = (128, 128)
    truth = target((0, 0, 100, 100), (110, 110, 120, 120), size=size)
    found = target((0, 0, 100, 72), (110, 110, 120, 120), (0, 100, 90, 128), size=size)
    scores = evaluated([found | {"scores": torch.tensor([0.9, 0.8, 0.7])}], [truth])
    # IoUs of 0.72 and 1: both match at 5 of 10 thresholds, at the others the second of two
    upper = 0.5 * 51 / 101  # precision 1 / 2 up to recall 1 / 2, at 101 recalls
    assert scores["box_map_50"] == pytest.approx(1)
    assert scores["box_map_75"] == pytest.approx(upper)
    assert scores["box_map"] == pytest.approx((1 + upper) / 2)
    assert scores["box_map_small"] == pytest.approx(1)
    assert scores["box_map_large"] == pytest.approx(0.5)
    assert "box_map_medium" not in scores
    boxes = {name: value for name, value in scores.items() if name.startswith("box")}
    masks = {name: value for name, value in scores.items() if name.startswith("mask")}
    assert list(boxes.values()) == pytest.approx(list(masks.values()))


def test_detections_within_a_crowd_are_not_counted():
    truth = target((0, 0, 30, 30), (30, 30, 64, 64))
    found = target((0, 0, 30, 30), (32, 32, 50, 50)) | {"scores": torch.tensor([0.8, 0.9])}
    assert evaluated([found], [truth])["box_map"] < 0.6
    crowd = truth | {"iscrowd": torch.tensor([0, 1])}
    assert evaluated([found], [crowd])["box_map"] == pytest.approx(1)


def test_no_object_and_no_detection():
    nothing = target() | {"scores": torch.zeros(0)}
    assert evaluated([nothing], [target()])["box_map"] == 0
    assert evaluated([nothing], [target((1, 1, 40, 40))])["mask_map"] == 0


def words(root, command="fit", *options):
    return [
        command,
        *("--model=smmix_pl.downstream.ObjectDetection", "--data=smmix_pl.data.COCO"),
        *("--model.backbone=vit_tiny_patch16_224", f"--model.backbone_args={VIT}"),
        *(f"--data.root={root}", "--data.image_size=64", "--data.batch_size=3"),
        *("--data.num_workers=0", "--trainer.accelerator=cpu", "--model.optim.warmup_steps=0"),
        *("--model.optim.lr=0.001", "--model.optim.lr_batch=3", "--data.hflip=0.0"),
        *(f"--model.detector_args={FEW}", *options),
    ]


@pytest.mark.slow
def test_a_run_resumes_exactly_and_reports(tmp_path):
    root = write_scenes(tmp_path / "scenes")
    options = ["--trainer.max_epochs=4", "--name=own", "--trainer.check_val_every_n_epoch=4"]
    for kept in (
        ["filename={epoch}", "save_top_k=-1", "every_n_epochs=2", "save_on_train_epoch_end=true"],
        ["filename=last"],
    ):
        options += ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor=null"]
        options += [f"--trainer.callbacks.{one}" for one in kept]
    run_here(*words(root), *options, "--trainer.log_every_n_steps=1", cwd=tmp_path)
    run = tmp_path / "runs/own/version_0"
    again = ["--name=again", f"--ckpt_path={run}/checkpoints/epoch=1.ckpt"]
    run_here(*words(root), *options, *again, cwd=tmp_path)
    ends = [
        torch.load(tmp_path / f"runs/{name}/version_0/checkpoints/epoch=3.ckpt", weights_only=True)
        for name in ("own", "again")
    ]
    assert ends[1]["global_step"] == ends[0]["global_step"] == 4
    for name, weight in ends[0]["state_dict"].items():
        assert torch.equal(weight, ends[1]["state_dict"][name]), name
    with open(run / "metrics.csv") as file:
        rows = [row["train/loss"] for row in csv.DictReader(file) if row["train/loss"]]
    assert float(rows[-1]) < float(rows[0])
    test = [*words(root, "test"), f"--ckpt_path={run}/checkpoints/epoch=3.ckpt", "--name=tested"]
    test += ["--trainer.callbacks+=DetectionPictures"]
    assert "mask AP" in run_here(*test, cwd=tmp_path)
    tested = tmp_path / "runs/tested/version_0"
    results = json.loads((tested / "results.json").read_text())
    assert results["run"]["task"] == "object detection"
    assert results["metrics"]["mask_map"]["images"] == 4
    assert Image.open(tested / "pictures/test_detection.png").size[0] > 100
    run_here("report", str(tested), "--output", "page.html", cwd=tmp_path)
    assert "box AP" in (tmp_path / "page.html").read_text()


def damaged(**fields):
    return lambda root: change_annotation(root, **fields)


def without_objects(root):
    file = root / "annotations/instances_train2017.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"annotations": []}))


TRAIN = "instances_train2017.json"
BAD = {
    "missing image": (lambda r: (r / "train2017/2.png").unlink(), (TRAIN, "2.png")),
    "unknown category": (damaged(category_id=5), (TRAIN, "annotation 0", "category 5")),
    "unknown image": (damaged(image_id=99), (TRAIN, "image 99")),
    "outside": (damaged(bbox=[50, 3, 20, 20]), (TRAIN, "annotation 0", "64 x 64")),
    "not a number": (damaged(bbox=[float("nan"), 3, 20, 20]), (TRAIN, "annotation 0")),
    "corners": (damaged(bbox=[20, 20, -10, 10]), (TRAIN, "annotation 0", "-10")),
    "three numbers": (damaged(bbox=[2, 3, 20]), (TRAIN,)),
    "short polygon": (damaged(segmentation=[[1, 1, 5, 5]]), (TRAIN, "2 points")),
    "flat polygon": (damaged(segmentation=[1, 1, 5, 5, 9, 9]), (TRAIN,)),
    "far polygon": (damaged(segmentation=[[1, 1, 5, 5, 9, 1e9]]), (TRAIN, "annotation 0")),
    "runs": (
        damaged(segmentation={"size": [64, 64], "counts": [5, -9, 4100]}),
        (TRAIN, "annotation 0"),
    ),
    "compressed": (
        damaged(segmentation={"size": [64, 64], "counts": "abc"}),
        (TRAIN, "annotation 0"),
    ),
    "no mask": (damaged(segmentation=None), (TRAIN, "1.png", "data.masks")),
    "no object": (without_objects, (TRAIN,)),
    "no JSON": (lambda r: (r / "annotations" / TRAIN).unlink(), (TRAIN,)),
    "not JSON": (lambda r: (r / "annotations" / TRAIN).write_text("{"), (TRAIN,)),
    "other categories": (
        lambda r: (r / "annotations" / TRAIN).write_text(
            (r / "annotations" / TRAIN).read_text().replace("red one", "green one")
        ),
        (TRAIN, "categories"),
    ),
    "corrupt image": (lambda r: (r / "train2017/1.png").write_bytes(b"x"), ("1.png",)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_reported(case, tmp_path):
    damage, parts = BAD[case]
    damage(write_scenes(tmp_path))
    data = COCO(root=str(tmp_path), image_size=64, batch_size=3, num_workers=0)
    with pytest.raises(InputError) as error:
        data.setup("fit")
        list(data.train_dataloader())
    assert all(part in str(error.value) for part in parts), error.value


@pytest.mark.parametrize(
    "options",
    [
        {"longest": 65},
        {"shortest": [32, 65]},
        {"scale_jitter": (0.5, 0.1)},
        {"scale_jitter": (0.5, 1.0), "shortest": [32]},
        {"hflip": 2},
        {"root": "missing"},
    ],
    ids=str,
)
def test_bad_settings_of_the_data_are_reported(options, tmp_path):
    [name, *_] = options
    with pytest.raises(InputError, match=f"data.{name}"):
        COCO(**{"root": str(tmp_path), "image_size": 64} | options)


@pytest.mark.filterwarnings("ignore:trainer.precision")
@pytest.mark.parametrize(
    ("option", "parts"),
    [
        ("--model.detector_args={box_nms_tresh: 0.4}", ("box_nms_tresh", "box_nms_thresh")),
        ("--data.image_size=[64, 96]", ("data.image_size", "64 x 96")),
        ("--data.masks=false", ("data.masks", "retinanet")),
        ("--trainer.precision=bf16-true", ("bf16-true", "bf16-mixed")),
        ("--data.train=elsewhere", ("instances_elsewhere.json",)),
    ],
)
def test_bad_options_are_reported(option, parts, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    root = write_scenes(tmp_path / "data")
    options = [*words(root), "--trainer.max_epochs=1", "--trainer.logger=false", option]
    line = refusal(main, options, capsys)
    assert all(part in line for part in parts), line


def test_a_missing_library_is_reported(monkeypatch):
    for name in ("faster_coco_eval", "faster_coco_eval.core"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"smmix-pl\[downstream\]"):
        module()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("detector", ARGUMENTS)
def test_a_few_images_are_learned(detector, tmp_path):
    root = write_scenes(tmp_path / "scenes")
    run_here(
        *words(root, "fit", f"--model.detector={detector}", "--trainer.max_epochs=150"),
        *(f"--model.detector_args={ARGUMENTS[detector]}", "--name=few", "--test_after_fit=true"),
        *("--trainer.check_val_every_n_epoch=150", "--trainer.callbacks+=ModelCheckpoint"),
        *("--trainer.callbacks.filename=last", "--trainer.callbacks.every_n_epochs=150"),
        cwd=tmp_path,
    )
    results = json.loads((tmp_path / "runs/few/version_0/results.json").read_text())
    assert results["metrics"]["box_map_50"]["value"] > 0.9
    if detector == "mask_rcnn":
        assert results["metrics"]["mask_map_50"]["value"] > 0.9
