"""Localization through the callback."""

import math

import pytest
import torch
from helpers import data_trees
from helpers.digits import quiet_trainer

from smmix_pl import InputError, NoMix, SMMixModule
from smmix_pl.callbacks import Localization
from smmix_pl.data import CUB, COCOObjects, EvalTransform, OxfordPets
from smmix_pl.data.objects import VOID, visible_objects
from smmix_pl.metrics import BoxAccuracy, MaskJaccard

SMALL = {"image_size": 32, "batch_size": 2, "num_workers": 0}
WHOLE = EvalTransform(crop_ratio=1.0, crop_mode="squash")


def module(classes, backbone="vit_tiny_patch16_224", **arguments):
    torch.manual_seed(0)
    if backbone == "vit_tiny_patch16_224":
        arguments = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    return SMMixModule(classes, (32, 32), 2, NoMix(), backbone=backbone, backbone_args=arguments)


def localized(model, data, **settings):
    callback = Localization(thresholds=5, **settings)
    [metrics] = quiet_trainer(callback).test(model, data, verbose=False)
    return callback, metrics


def test_the_maps_are_those_of_the_guide_and_belong_to_their_images(tmp_path):
    """The metrics equal those computed from the guide's maps, image by image."""
    data = COCOObjects(root=str(data_trees.coco(tmp_path)), eval_transform=WHOLE, **SMALL)
    model = module(2)
    callback, metrics = localized(model, data)
    assert callback.result.images == 3
    for readout in ("class", "tokens", "similarity"):
        view = type(model.backbone)(
            model.backbone.model,
            None,
            32,
            token_head="shared",
            guide=type(model.backbone.guide_config)(readout=readout),
        )
        jaccard, boxes = MaskJaccard(0.9, VOID), BoxAccuracy(0.6, 5)
        images = torch.cat(
            [data.on_after_batch_transfer(batch, 0)[0] for batch in data.test_dataloader()]
        )
        for one, attention in zip(
            data.annotations(), view.guide(images.float()).attention, strict=True
        ):
            objects = visible_objects(one, WHOLE, (32, 32))
            jaccard.update(attention[None], objects.mask)
            boxes.update(attention, objects.boxes, (32, 32))
        assert metrics[f"test/jaccard_{readout}"] == pytest.approx(jaccard.compute()["mean_map"])
        assert metrics[f"test/corloc_{readout}"] == pytest.approx(boxes.compute().corloc)
        expected = boxes.compute().max_box_acc_v2
        assert metrics[f"test/max_box_acc_v2_{readout}"] == pytest.approx(expected)
        assert (
            metrics[f"test/jaccard_best_head_{readout}"] >= metrics[f"test/jaccard_{readout}"] - 1
        )


def test_only_what_a_dataset_annotates_is_logged(tmp_path):
    boxes, masks = (
        localized(module(kind.class_count), kind(root=str(tree(tmp_path)), **SMALL))[1]
        for kind, tree in ((CUB, data_trees.cub), (OxfordPets, data_trees.pets))
    )
    assert "test/corloc_class" in boxes
    assert "test/jaccard_class" not in boxes
    assert "test/jaccard_class" in masks
    assert "test/corloc_class" not in masks
    assert all(math.isfinite(value) for value in (*boxes.values(), *masks.values()))


def test_the_figure_has_a_row_per_image_and_a_column_per_readout(tmp_path):
    data = COCOObjects(root=str(data_trees.coco(tmp_path)), eval_transform=WHOLE, **SMALL)
    callback, _ = localized(module(2), data, readouts=["class", "similarity"], pictures=2)
    [figure] = callback.figures(callback.result).values()
    assert len(figure.axes) == 2 * 3


def test_a_model_without_class_token_has_no_class_attention(tmp_path):
    data = COCOObjects(root=str(data_trees.coco(tmp_path)), **SMALL)
    model = module(2, "swin_tiny_patch4_window7_224", embed_dim=24, depths=[1, 1], num_heads=[1, 1])
    with pytest.raises(InputError, match=r"Localization\.readouts=class"):
        localized(model, data)
