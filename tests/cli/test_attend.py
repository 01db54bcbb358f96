"""`smmix attend`: pages about what a model attends to in the user's images."""

from html.parser import HTMLParser

import numpy as np
import pytest
import timm
import torch
from helpers.digits import digits, quiet_trainer
from helpers.image_folders import write_image_folder
from helpers.programs import run_here
from PIL import Image
from safetensors.torch import save_file

from smmix_pl.cli.attended_images import attended_pairs, from_checkpoint, from_timm, html_page
from smmix_pl.mixing.regions import least_attended

MODEL = "vit_tiny_patch16_224"


class Tags(HTMLParser):
    """Collects the attributes of all tags."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.fixture
def weights(tmp_path):
    """Write the weights of a small model, and images, into the folder of a test."""
    write_image_folder(tmp_path / "images", per_class=2)
    model = timm.create_model(MODEL, img_size=64)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def test_a_timm_model_needs_no_checkpoint(weights, tmp_path):
    words = ["attend", "images", "--backbone", MODEL, "--image_size", "64"]
    words += ["--init_from", weights.name]
    run_here(*words, "--pairs", "1", cwd=tmp_path)
    with Image.open(tmp_path / "attention.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50
    run_here(*words, "--pairs", "2", "--output", "page.html", cwd=tmp_path)
    tags = Tags((tmp_path / "page.html").read_text()).found
    images = [attributes for tag, attributes in tags if tag == "img"]
    assert len(images) == 2
    assert all(one["src"].startswith("data:image/png;base64,") for one in images)
    assert not [tag for tag, _ in tags if tag in ("script", "link")]


def test_maps_windows_and_mixes_follow_from_the_readouts(weights, tmp_path):
    viewer = from_timm(MODEL, weights, 64, "class")
    assert viewer.guide == "class"
    [(one, other)] = attended_pairs(tmp_path / "images/ant", viewer, side=2)
    assert [*one.attention] == ["tokens", "class", "similarity"]
    for readout, attention in one.attention.items():
        assert attention.shape == (4, 4)
        least, _ = one.windows[readout]
        assert list(least[:2]) == least_attended(attention[None], 2)[0].tolist()
    # the most attended window of the other image is in place of the least attended one
    (row, column, side), _ = one.windows["class"]
    _, (from_row, from_column, _) = other.windows["class"]
    pasted, source = (
        image[:, 16 * y : 16 * (y + side), 16 * x : 16 * (x + side)]
        for image, y, x in (
            (one.mixed["SMMix"].image, row, column),
            (other.image, from_row, from_column),
        )
    )
    torch.testing.assert_close(pasted, source, atol=1e-5, rtol=0)
    assert one.mixed["SMMix"].labels == pytest.approx((0.75, 0.25))


@pytest.mark.parametrize("model", ["resnet18", "mobilenetv3_small_050"])
def test_a_model_without_attention_shows_its_similarity(model, tmp_path):
    write_image_folder(tmp_path / "images", ("ant",), per_class=2)
    save_file(timm.create_model(model).state_dict(), tmp_path / "weights.safetensors")
    viewer = from_timm(model, tmp_path / "weights.safetensors", 64, None)
    [(one, _)] = attended_pairs(tmp_path / "images/ant", viewer, side=1)
    assert [*one.attention] == ["similarity"]


def test_a_checkpoint_guides_as_in_its_run(tiny_module, tmp_path):
    write_image_folder(tmp_path / "images", ("a & <b>",), per_class=2)
    tiny_module.hparams["guide"]["readout"] = "similarity"
    trainer = quiet_trainer(max_epochs=0)
    trainer.fit(tiny_module, digits())
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    viewer = from_checkpoint(tmp_path / "model.ckpt", None)
    assert viewer.guide == "similarity"
    assert viewer.image_size == (32, 32)
    assert from_checkpoint(tmp_path / "model.ckpt", "class").guide == "class"
    pairs = attended_pairs(tmp_path / "images/a & <b>", viewer)
    assert "vit_tiny_patch16_224" in html_page(pairs, viewer)
