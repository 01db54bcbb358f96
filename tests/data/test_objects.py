"""Boxes and masks of datasets, and how they move with the evaluation's resize and crop."""

import json

import numpy as np
import pytest
from helpers import data_trees
from helpers.digits import quiet_trainer
from helpers.programs import TINY_FLAGS, refusal
from helpers.sampling import every
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from smmix_pl import InputError, SMMix, SMMixModule
from smmix_pl.callbacks import Localization
from smmix_pl.cli.main import main
from smmix_pl.data import (
    CUB,
    COCOObjects,
    EvalTransform,
    Folder,
    OxfordPets,
    TinyImageNet,
    VOCObjects,
)
from smmix_pl.data.objects import Annotation, visible_objects

SMALL = {"image_size": 32, "batch_size": 2, "num_workers": 0}
WHOLE = EvalTransform(crop_ratio=1.0, crop_mode="squash")


def objects(data):
    return [visible_objects(one, WHOLE, (30, 40)) for one in data.annotations()]


@given(
    st.tuples(st.integers(40, 90), st.integers(40, 90)),
    st.sampled_from([(32, 32), (32, 48), (56, 32)]),
    st.sampled_from(["center", "squash"]),
    st.sampled_from([1.0, 0.875, 0.6]),
)
def test_boxes_stay_on_the_pixels_of_their_object(tmp_path_factory, shape, size, mode, ratio):
    """The transformed box encloses the transformed mask of the same rectangle, within a pixel."""
    width, height = shape
    box = (width // 4, height // 5, width // 4 + width // 2, height - 3)
    mask = Image.new("L", shape)
    ImageDraw.Draw(mask).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=1)
    file = tmp_path_factory.getbasetemp() / "image.png"
    mask.convert("RGB").save(file)
    recipe = EvalTransform(crop_ratio=ratio, crop_mode=mode)
    found = visible_objects(Annotation(str(file), "list", [box], lambda: mask), recipe, size)
    assert found.mask.shape == size
    rows, columns = found.mask.nonzero().T
    expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert found.boxes[0].tolist() == pytest.approx([float(one) for one in expected], abs=1.01)


def test_a_box_outside_of_the_crop_is_dropped(tmp_path):
    file = data_trees.put(tmp_path / "a.jpg", data_trees.jpeg(size=(90, 30)))
    boxes = [(0, 0, 10, 30), (35, 5, 55, 25)]
    found = visible_objects(Annotation(str(file), "list", boxes), EvalTransform(1.0), (30, 30))
    assert found.boxes.tolist() == [[5, 5, 25, 25]]


def test_boxes_of_cub_and_tiny_imagenet(tmp_path):
    cub = CUB(root=str(data_trees.cub(tmp_path)), **SMALL)
    assert [one.boxes.tolist() for one in objects(cub)] == [
        [[number, 2, number + 20, 27]] for number in (3, 6, 9)
    ]
    tiny = TinyImageNet(root=str(data_trees.tiny_imagenet(tmp_path)), **SMALL)
    assert [one.boxes.tolist() for one in objects(tiny)] == [[[0, 0, 10, 10]]] * 2
    assert objects(tiny)[0].mask is None


def test_trimaps_of_pets(tmp_path):
    [found] = objects(OxfordPets(root=str(data_trees.pets(tmp_path)), **SMALL))
    assert len(found.boxes) == 0
    values, counts = found.mask.unique(return_counts=True)
    assert values.tolist() == [0, 1, 255]
    assert counts.tolist() == [1200 - 200, 72, 200 - 72]


@pytest.mark.parametrize("image_set", ["Segmentation", "Main"])
def test_voc(tmp_path, image_set):
    data = VOCObjects(root=str(data_trees.voc(tmp_path)), image_set=image_set, **SMALL)
    assert [data.class_names[label] for _, label in data.samples("test")] == ["dog", "cat"]
    dog, cat = objects(data)
    assert dog.boxes.tolist() == [[4, 4, 20, 24]]
    assert cat.boxes.tolist() == [[0, 0, 10, 10], [10, 2, 40, 30]]
    if image_set == "Main":
        assert dog.mask is None
    else:
        assert dog.mask.unique().tolist() == [0, 12, 255]
        assert (dog.mask[:2] == 255).all()
        assert (dog.mask[4:24, 4:20] == 12).all()


def test_coco(tmp_path):
    data = COCOObjects(root=str(data_trees.coco(tmp_path)), **SMALL)
    assert data.class_names == ["cat", "dog"]
    assert [label for _, label in data.samples("test")] == [1, 0, 1]
    boxed, triangle, _ = objects(data)
    assert boxed.boxes.tolist() == [[4, 6, 24, 18]]
    assert (boxed.mask[:, :2] == 255).all()  # the crowd
    assert (boxed.mask[6:18, 4:24] == 2).all()
    assert triangle.mask[11, 21] == 1
    assert triangle.mask[25, 35] == 0
    data.setup("test")
    assert sum(len(labels) for _, labels in data.test_dataloader()) == 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint of a tiny model with two classes, which a test can load."""
    folder = tmp_path_factory.mktemp("model")
    data = COCOObjects(root=str(data_trees.coco(folder)), **SMALL)
    module = SMMixModule(
        num_classes=2,
        image_size=(32, 32),
        batch_size=2,
        mixer=SMMix(),
        backbone="vit_tiny_patch16_224",
        backbone_args={"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
    )
    trainer = quiet_trainer(max_steps=1, limit_val_batches=0, log_every_n_steps=1)
    trainer.fit(module, data)
    trainer.save_checkpoint(folder / "tiny.ckpt")
    return folder / "tiny.ckpt"


def changed(root, **fields):
    """Change the fields of the first annotation."""
    file = root / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    content["annotations"][0] |= fields
    file.write_text(json.dumps(content))


BAD_COCO = {
    "outside": (lambda root: changed(root, bbox=[30, 6, 20, 12]), "outside"),
    "no area": (lambda root: changed(root, bbox=[4, 6, -3, 12]), "without area"),
    "category": (lambda root: changed(root, category_id=5), "category 5"),
    "image": (lambda root: changed(root, image_id=99), "image 99"),
    "polygon": (lambda root: changed(root, segmentation=[[1, 1, 5, 5]]), "2 points"),
    "compressed": (lambda root: changed(root, segmentation={"counts": "abc"}), "compressed"),
    "missing": (lambda root: (root / "val2017/2.jpg").unlink(), "2.jpg"),
    "json": (lambda root: (root / "annotations/instances_val2017.json").write_text("{"), "COCO"),
    "no json": (lambda root: (root / "annotations/instances_val2017.json").unlink(), "no such"),
}


def localize(data, root, checkpoint, *words):
    """Return the command that tests localization."""
    callbacks = "[{class_path: smmix_pl.callbacks.Localization}]"
    return [
        *("test", "--data", f"smmix_pl.data.{data}", f"--data.root={root}", *TINY_FLAGS),
        *(f"--ckpt_path={checkpoint}", "--trainer.logger=false", "--data.batch_size=2"),
        *(f"--trainer.callbacks={callbacks}", *words),
    ]


@pytest.mark.parametrize("case", every(3, BAD_COCO))
def test_bad_coco_annotations_are_refused(case, tmp_path, checkpoint, capsys):
    damage, part = BAD_COCO[case]
    damage(data_trees.coco(tmp_path))
    line = refusal(main, localize("COCOObjects", tmp_path, checkpoint), capsys)
    assert part in line
    assert str(tmp_path) in line


def write_mask(root, mask):
    Image.fromarray(mask).save(root / "VOCdevkit/VOC2012/SegmentationClass/2007_000001.png")


BAD_VOC = {
    "missing mask": (
        lambda root: (root / "VOCdevkit/VOC2012/SegmentationClass/2007_000001.png").unlink(),
        "missing",
    ),
    "size": (lambda root: write_mask(root, np.zeros((20, 40), np.uint8)), "40 x 20"),
    "value": (lambda root: write_mask(root, np.full((30, 40), 21, np.uint8)), "21 in 1,200"),
    "colors": (lambda root: write_mask(root, np.zeros((30, 40, 3), np.uint8)), "mode RGB"),
    "category": (
        lambda root: data_trees.put(
            root / "VOCdevkit/VOC2012/Annotations/2007_000001.xml",
            "<annotation><object><name>unicorn</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
            "<xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>",
        ),
        "unicorn",
    ),
    "xml": (
        lambda root: data_trees.put(
            root / "VOCdevkit/VOC2012/Annotations/2007_000001.xml", "<annotation>"
        ),
        "2007_000001.xml",
    ),
}


@pytest.mark.parametrize("case", BAD_VOC)
def test_bad_voc_annotations_are_refused(case, tmp_path, capsys):
    damage, part = BAD_VOC[case]
    damage(data_trees.voc(tmp_path))
    data = VOCObjects(root=str(tmp_path), **SMALL)
    with pytest.raises(InputError, match=part) as error:
        data.samples("test")
        objects(data)
    assert "2007_000001" in str(error.value)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--data.bad_images=skip"], "data.bad_images=skip"),
        (
            [
                "--trainer.callbacks=[{class_path: smmix_pl.callbacks.Localization, init_args: "
                "{readouts: []}}]"
            ],
            "Localization.readouts=[]",
        ),
        (
            [
                "--trainer.callbacks=[{class_path: smmix_pl.callbacks.Localization, init_args: "
                "{mass: 0}}]"
            ],
            "Localization.mass=0",
        ),
    ],
)
def test_unusable_settings_are_refused(words, part, tmp_path, checkpoint, capsys):
    data_trees.coco(tmp_path)
    line = refusal(main, localize("COCOObjects", tmp_path, checkpoint, *words), capsys)
    assert part in line


def test_a_dataset_without_objects_is_refused(imagenet_folder, tiny_module):
    data = Folder(root=str(imagenet_folder), **SMALL)
    tiny_module.num_classes = 3
    with pytest.raises(InputError, match="does not support Folder"):
        quiet_trainer(Localization()).test(tiny_module, data, verbose=False)
