"""What the mixing figure shows of a run and of its mixer."""

from pathlib import Path

import pytest
import torch
from helpers.small_runs import digits, module, trainer
from lightning.pytorch.loggers import CSVLogger

from smmix_pl import CutMix, PuzzleMix, SMMix, TransMix
from smmix_pl.callbacks import MixedImages
from smmix_pl.callbacks.training import mixed_images
from smmix_pl.callbacks.training.mixed_images import mixing_example
from smmix_pl.mixing import Guide
from smmix_pl.mixing.regions import least_attended, most_attended, paste

MEAN, STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
PAIR = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def example(mixer, rng, pair=PAIR):
    model = module(mixer).eval()
    with torch.no_grad():
        mixed = mixer(pair, torch.eye(10)[[3, 7]], model.backbone, rng)
    drawn = {"mixer": (mixed, (3, 7))}
    return mixing_example(model, pair, ("three", "seven"), drawn, MEAN, STD), mixed


@pytest.fixture
def rng():
    return mixed_images.np.random.default_rng(1)


def test_the_windows_are_those_that_made_the_image(rng):
    shown, mixed = example(SMMix(switch_prob=1), rng)
    *to, side = shown.covered
    *origin, _ = shown.copied
    again = paste(PAIR[:1], PAIR[1:], torch.tensor([to]), torch.tensor([origin]), side, (4, 4))
    assert torch.equal(again[0], mixed.images[0])
    assert torch.allclose(shown.mixed["mixer"].image, again[0], atol=1e-6)
    assert to == least_attended(shown.target_attention[None], side)[0].tolist()
    assert origin == most_attended(shown.source_attention[None], side)[0].tolist()
    assert shown.mixed["mixer"].labels == pytest.approx((mixed.lam, 1 - mixed.lam))


@pytest.mark.parametrize(
    "mixer", [SMMix(switch_prob=1, region_choice="random"), SMMix(switch_prob=0), CutMix()]
)
def test_other_regions_have_no_windows(mixer, rng):
    shown, _ = example(mixer, rng)
    assert shown.covered is shown.copied is None


def test_labels_from_attention_are_those_of_the_loss(rng):
    shown, mixed = example(TransMix(switch_prob=1), rng)
    labels = shown.mixed["mixer"].labels
    assert sum(labels) == pytest.approx(1)
    assert labels != pytest.approx(mixed.labels[0, [3, 7]].tolist())


@pytest.fixture
def fit(tmp_path, monkeypatch):
    """Train for one batch, and return the rows of the figure."""

    def run(model, data):
        drawn = []
        draw = mixed_images.mixing_figure
        monkeypatch.setattr(
            mixed_images, "mixing_figure", lambda rows: drawn.append(rows) or draw(rows)
        )
        trainer(
            tmp_path,
            max_epochs=1,
            limit_train_batches=1,
            logger=CSVLogger(tmp_path, name="run", version=""),
            callbacks=[MixedImages(examples=3)],
        ).fit(model, data)
        [rows] = drawn
        return rows

    return run


def test_a_run_draws_its_own_mixer_on_validation_images_of_different_classes(fit, tmp_path):
    """The classes differ in each row and between rows, and every image is one of the split."""
    data = digits(held_out=0.1)
    rows = fit(module(TransMix(switch_prob=0.5)), data)
    assert len(rows) == 3
    assert len({name for row in rows for name in row.names}) == 6
    assert {mixer for row in rows for mixer in row.mixed} == {"TransMix"}
    known = torch.cat([images for images, _ in data.val_dataloader()]).float() / 255
    for image in (image for row in rows for image in (row.target, row.source)):
        assert (known - image).abs().amax(dim=(1, 2, 3)).min() < 1e-5
    assert {path.name for path in Path(tmp_path, "run/pictures").iterdir()} == {
        "val_mixing.png",
        "val_mixing.svg",
    }


class Corner:
    """A guide that attends to the first token of every image."""

    grid = (4, 4)

    def guide(self, images):
        attention = torch.zeros(len(images), *self.grid)
        attention[:, 0, 0] = 1
        return Guide(None, attention)


def test_regions_are_those_of_the_model_that_guides_the_training(fit):
    model = module(SMMix(switch_prob=1, consistency=False))
    model.set_guide_model(Corner())
    for row in fit(model, digits(held_out=0.1)):
        assert row.copied[:2] == (0, 0)
        assert row.covered[:2] == (0, 1)


def test_nothing_is_drawn_outside_of_a_training(tmp_path):
    """Where the gradient that PuzzleMix reads cannot be computed."""
    run = trainer(tmp_path, limit_val_batches=1, callbacks=[MixedImages(every_n_epochs=1)])
    run.validate(module(PuzzleMix()), digits(held_out=0.1), verbose=False)
