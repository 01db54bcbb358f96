"""COCO's images and targets: what is excluded, and how boxes and masks move with their image."""

import numpy as np
import pytest
import torch
from helpers.coco_scenes import change_annotation, write_scenes
from PIL import Image

from smmix_pl import InputError
from smmix_pl.data import COCO
from smmix_pl.data.io.packed import Packed
from smmix_pl.seeding import reseed


def opened(root, **options):
    """Return the datamodule, set up for training."""
    data = COCO(root=str(root), **({"image_size": 96, "batch_size": 2, "num_workers": 0} | options))
    data.setup("fit")
    return data


def items(data, split):
    loader = data.train_dataloader() if split == "train" else data.val_dataloader()
    images = loader.dataset.images
    return [images[index] for index in range(len(images))]


def test_crowds_and_empty_images_are_excluded_from_training_only(tmp_path):
    data = opened(write_scenes(tmp_path))
    assert data.class_names == ["red one", "blue one"]
    assert data.counts == {"train": 3, "val": 4}
    assert [target["labels"].tolist() for _, target in items(data, "train")] == [
        [0, 1],
        [0],
        [0, 1],
    ]
    first, *_, last = [target for _, target in items(data, "val")]
    assert first["labels"].tolist() == [0, 1, 0]
    assert first["iscrowd"].tolist() == [0, 0, 1]
    assert first["masks"][2].sum() == first["area"][2] == 4 * 64
    assert last["boxes"].shape == (0, 4)
    assert last["masks"].shape == (0, 56, 60)


def test_evaluation_resizes_the_image_and_keeps_the_target(tmp_path):
    data = opened(write_scenes(tmp_path), image_size=(96, 120), longest=112)
    shapes = [tuple(image.shape) for image, _ in items(data, "val")]
    assert shapes == [(3, 96, 96), (3, 84, 112), (3, 112, 84), (3, 96, 103)]
    _, target = items(data, "val")[1]
    assert target["size"].tolist() == [48, 64]
    assert target["boxes"].tolist() == [[2, 3, 26, 27]]
    assert target["masks"].shape == (1, 48, 64)
    assert target["masks"][0, 3:27, 2:26].all()
    assert target["masks"].sum() == 24 * 24


@pytest.mark.parametrize(
    "options",
    [{"shortest": [40, 64, 96]}, {"scale_jitter": (0.3, 2.0)}, {"image_size": (64, 160)}],
    ids=str,
)
def test_boxes_stay_on_their_masks_and_their_pixels(options, tmp_path):
    data = opened(write_scenes(tmp_path), **options)
    sizes = set()
    for seed in range(12):
        reseed(seed)
        for image, target in items(data, "train"):
            sizes.add(tuple(image.shape))
            assert target["masks"].shape == (len(target["boxes"]), *image.shape[1:])
            assert target["labels"].shape == target["area"].shape == target["boxes"].shape[:1]
            objects = [target[name] for name in ("boxes", "masks", "labels")]
            for box, mask, label in zip(*objects, strict=True):
                rows, columns = mask.nonzero().T
                tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert box.tolist() == pytest.approx([float(one) for one in tight], abs=1.5)
                color = image[:, mask.bool()].float().mean(dim=1)
                assert color[0 if label == 0 else 2] > 1.5 * color[2 if label == 0 else 0]
    jitter = "scale_jitter" in options
    assert sizes == {(3, 96, 96)} if jitter else len(sizes) > 2
    assert max(max(size) for size in sizes) <= max(data.image_size)


def test_flips_are_drawn(tmp_path):
    left = [
        items(opened(write_scenes(tmp_path / str(flip)), hflip=flip), "train")[1][1]["boxes"][0, 0]
        for flip in (0.0, 1.0)
    ]
    assert left[0] < 10 < left[1]


def test_a_box_without_area_is_excluded_and_reported(tmp_path):
    """As in annotations 918 and 2206849 of COCO's own training set."""
    change_annotation(write_scenes(tmp_path), bbox=[2, 3, 20, 0])
    with pytest.warns(UserWarning, match="annotation 0"):
        data = opened(tmp_path)
    assert items(data, "train")[0][1]["labels"].tolist() == [1]


def test_batches_are_lists_of_normalized_images(tmp_path):
    data = opened(write_scenes(tmp_path))
    images, targets = next(iter(data.val_dataloader()))
    assert [len(images), len(targets)] == [2, 2]
    found, same = data.on_after_batch_transfer((images, targets), 0)
    assert same is targets
    assert found[0].dtype == torch.float32
    mean, std = torch.tensor(data.mean), torch.tensor(data.std)
    expected = (images[0].float() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    assert found[0].allclose(expected, atol=1e-6)


def test_masks_are_optional(tmp_path):
    data = opened(write_scenes(tmp_path), masks=False)
    assert "masks" not in items(data, "train")[0][1]
    change_annotation(tmp_path, segmentation=[])
    opened(tmp_path, masks=False)
    with pytest.raises(InputError, match=r"data\.masks"):
        opened(tmp_path)


def test_a_file_of_another_size_is_named(tmp_path):
    write_scenes(tmp_path)
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "val2017/2.png")
    with pytest.raises(InputError, match=r"2\.png: has 9 x 9 pixels.* 48 x 64"):
        items(opened(tmp_path), "val")


def test_packed_items_are_equal():
    rows = [{"a": index, "b": ["x"] * index} for index in range(5)]
    packed = Packed(rows)
    assert [packed[index] for index in range(len(packed))] == rows
    assert len(Packed([])) == 0
