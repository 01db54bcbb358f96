"""What a backbone is built from, and region masks of both forms."""

import pytest
import timm
import torch
from helpers.small_runs import TINY

from smmix_pl import Backbone, InputError

ARGS = {"num_classes": 10, "img_size": 32, **TINY}


def test_a_timm_model_is_used_as_it_was_created():
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", **ARGS)
    backbone = Backbone(model, image_size=32)
    images = torch.randn(2, 3, 32, 32)
    assert backbone.model is model
    assert backbone.grid == (8, 8)
    assert backbone.token_head.out_features == 10
    torch.testing.assert_close(backbone.eval()(images), model.eval()(images))
    assert backbone.guide(images).attention.shape == (2, 8, 8)


def test_a_name_needs_the_number_of_classes():
    with pytest.raises(InputError, match="num_classes"):
        Backbone("vit_tiny_patch16_224")


def test_a_timm_model_must_fit_the_image_size():
    model = timm.create_model("vit_tiny_patch16_224", **ARGS)
    with pytest.raises(InputError, match="24 x 24"):
        Backbone(model, image_size=24)


def test_region_logits_take_one_region_or_several(tiny_backbone):
    tokens = torch.randn(3, 64, 48)
    masks = torch.rand(3, 2, 64) > 0.5
    both = tiny_backbone.region_logits(tokens, masks)
    assert both.shape == (3, 2, 10)
    for region in range(2):
        one = tiny_backbone.region_logits(tokens, masks[:, region])
        torch.testing.assert_close(one, both[:, region])
    mean = tokens[0][masks[0, 0]].mean(dim=0)
    torch.testing.assert_close(both[0, 0], tiny_backbone.token_head(mean))
