"""The quality of the guide's windows, where the objects are known."""

import pytest
import torch
from helpers import data_trees
from helpers.digits import digits, quiet_trainer

from smmix_pl import InputError, SMMix, SMMixModule
from smmix_pl.callbacks import GuideQuality
from smmix_pl.data import CUB, OxfordPets
from smmix_pl.data.objects import visible_objects

SMALL = {"image_size": 32, "batch_size": 3, "num_workers": 0}
TINY = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


def module(classes):
    torch.manual_seed(0)
    return SMMixModule(
        classes, (32, 32), 3, SMMix(), backbone="vit_tiny_patch16_224", backbone_args=TINY
    )


@pytest.mark.parametrize(("kind", "tree"), [(CUB, "cub"), (OxfordPets, "pets")])
def test_fractions_are_those_of_the_chosen_windows(kind, tree, tmp_path):
    data = kind(root=str(getattr(data_trees, tree)(tmp_path)), **SMALL)
    model = module(kind.class_count)
    [logged] = quiet_trainer(GuideQuality([0.5, 1])).validate(model, data, verbose=False)
    found = {"pasted": [], "hidden": [], "random": []}
    images = torch.cat([data.on_after_batch_transfer(one, 0)[0] for one in data.val_dataloader()])
    for one, attention in zip(
        data.annotations(), model.eval().backbone.guide(images).attention, strict=True
    ):
        boxes, mask = visible_objects(one, data.eval_recipe, (32, 32))
        if mask is None:
            left, top, right, bottom = boxes[0].round().int().tolist()
            mask = torch.zeros(32, 32)
            mask[top:bottom, left:right] = 1
        mask = ((mask > 0) & (mask != 255)).float()
        windows = [(row, column) for row in range(3) for column in range(3)]  # 2 x 2 of 4 x 4
        scores = [float(attention[r : r + 2, c : c + 2].sum()) for r, c in windows]
        inside = [
            float(mask[8 * r : 8 * r + 16, 8 * c : 8 * c + 16].sum() / mask.sum())
            for r, c in windows
        ]
        found["pasted"].append(inside[scores.index(max(scores))])
        found["hidden"].append(inside[scores.index(min(scores))])
        found["random"].append(sum(inside) / len(inside))
    for name, values in found.items():
        assert logged[f"val/guide_{name}_50"] == pytest.approx(sum(values) / len(values), abs=1e-6)
        assert logged[f"val/guide_{name}_100"] == pytest.approx(1)


def test_objects_must_belong_to_the_evaluated_images(tmp_path):
    data = CUB(root=str(data_trees.cub(tmp_path)), held_out=0.5, **SMALL)
    with pytest.raises(InputError, match=r"data\.held_out=0\.5"):
        quiet_trainer(GuideQuality()).validate(module(200), data, verbose=False)
    with pytest.raises(InputError, match="Digits"):
        quiet_trainer(GuideQuality()).validate(module(10), digits(), verbose=False)
    data = CUB(root=str(data_trees.cub(tmp_path)), bad_images="skip", **SMALL)
    with pytest.raises(InputError, match=r"data\.bad_images=skip"):
        quiet_trainer(GuideQuality()).validate(module(200), data, verbose=False)
