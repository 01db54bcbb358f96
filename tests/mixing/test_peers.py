"""The other mixers, each compared with cases worked out by hand."""

import math

import numpy as np
import pytest
import torch
from helpers.mixing_batches import CLASSES, FixedGuide, Scripted, batches
from helpers.sampling import every
from helpers.small_runs import TINY
from hypothesis import given
from hypothesis import strategies as st
from timm.data.mixup import Mixup as TimmMixup
from torch.nn import functional as F

from smmix_pl import (
    AttentiveCutMix,
    Backbone,
    CutMix,
    FMix,
    GridMix,
    InputError,
    MergeMix,
    MixPro,
    Mixup,
    MixupCutMix,
    ResizeMix,
    SaliencyMix,
    SMMix,
    SMMixModule,
    TLAlign,
    TokenMix,
    TransMix,
)
from smmix_pl.cli.main import main
from smmix_pl.losses import SMMixLoss
from smmix_pl.mixing import Guide, soft_labels
from smmix_pl.mixing.fmix import low_frequency_image, lowest_pixels
from smmix_pl.mixing.masks import attended_fraction, mix_by_mask, resample
from smmix_pl.mixing.saliencymix import NEIGHBORHOODS, fine_grained_saliency, gray_levels
from smmix_pl.mixing.tokenmix import block_mask
from smmix_pl.models.guide_config import GuideConfig

PASTE_IN_PLACE = [
    TransMix(switch_prob=1),
    TokenMix(switch_prob=1),
    MixPro(switch_prob=1),
    MixPro(switch_prob=1, cell_side=1),
    AttentiveCutMix(),
    TLAlign(),
    MergeMix(switch_prob=1),
    SaliencyMix(),
    SaliencyMix(peak="each"),
    FMix(),
    GridMix(),
]
ONE_MASK = (TransMix, TLAlign, TokenMix, FMix, GridMix)
LABELS = soft_labels(torch.tensor([0, 1]), CLASSES)


def name(mixer):
    return type(mixer).__name__


class Fixed:
    """A guide model with given attention."""

    def __init__(self, attention):
        self.attention = attention
        self.grid = tuple(attention.shape[1:])

    def guide(self, images):
        return Guide(torch.zeros(len(images), CLASSES), self.attention)


def numbered_pixels(batch, height, width, channels=3):
    """Images in which all pixels differ, so that each can be traced to its place."""
    count = batch * channels * height * width
    return torch.arange(count, dtype=torch.float32).view(batch, channels, height, width)


# Properties of all mixers that paste in place


@pytest.mark.parametrize("mixer", PASTE_IN_PLACE, ids=name)
@given(
    batch=st.integers(1, 5),
    size=st.tuples(st.integers(2, 19), st.integers(2, 19)),
    grid=st.tuples(st.integers(2, 7), st.integers(2, 7)),
    seed=st.integers(0, 2**32 - 1),
)
def test_each_pixel_comes_from_the_same_place_of_target_or_source(mixer, batch, size, grid, seed):
    """Also where the token grid does not divide the images."""
    images = numbered_pixels(batch, *size)
    labels = soft_labels(torch.arange(batch) % CLASSES, CLASSES, 0.1)
    mixed = mixer(images, labels, FixedGuide(grid), np.random.default_rng(seed))
    from_source = mixed.images == images.flip(0)
    from_target = mixed.images == images
    assert (from_source | from_target).all()
    assert (from_source == from_source[:, :1]).all()  # all channels of a pixel move together
    pairs = torch.arange(batch) != torch.arange(batch).flip(0)
    covered = from_source[:, 0].float().mean(dim=(1, 2))
    lam = mixed.lam.squeeze(1)
    torch.testing.assert_close(1 - covered[pairs], lam[pairs])
    if isinstance(mixer, ONE_MASK) and pairs.any():
        masks = from_source[pairs]
        assert torch.equal(masks, masks[:1].expand_as(masks))


@pytest.mark.parametrize("mixer", [*PASTE_IN_PLACE, ResizeMix(), SMMix(switch_prob=1)], ids=name)
def test_channels_last_is_kept(mixer):
    images = torch.randn(4, 3, 16, 12).to(memory_format=torch.channels_last)
    mixed = mixer(images, LABELS.repeat(2, 1), FixedGuide((4, 3)), np.random.default_rng(0))
    assert mixed.images.is_contiguous(memory_format=torch.channels_last)


# Masks


def test_mixing_by_a_mask_at_any_resolution():
    images = numbered_pixels(2, 4, 6)
    mask = torch.tensor([[[True, False], [False, False]], [[False, False], [True, True]]])
    mixed = mix_by_mask(images, LABELS, mask)
    assert torch.equal(mixed.images[0, :, :2, :3], images[1, :, :2, :3])
    assert torch.equal(mixed.images[0, :, 2:], images[0, :, 2:])
    assert torch.equal(mixed.images[1, :, 2:], images[0, :, 2:])
    torch.testing.assert_close(mixed.lam, torch.tensor([[0.75], [0.5]]))
    torch.testing.assert_close(mixed.labels[0, :2], torch.tensor([0.75, 0.25]))


def test_attended_fraction():
    attention = torch.tensor([[[0.1, 0.2], [0.3, 0.2]]])
    mask = torch.tensor([[[False, True], [False, False]]])
    torch.testing.assert_close(attended_fraction(attention, mask), torch.tensor([[0.75]]))


def test_masks_are_resampled_by_nearest_neighbors():
    """Token 1 of 3 over 7 pixels reads pixel floor(7 / 3) = 2, token 2 reads pixel 4."""
    pixels = torch.tensor([[[False, False, True, False, False, True, True]]])
    assert resample(pixels, (1, 3)).tolist() == [[[False, True, False]]]


# Mixup or CutMix


def test_mixup_cutmix_applies_either():
    images = torch.randn(2, 3, 8, 8)
    cases = [(Scripted(0.49, 0.75, 4, 4), CutMix()), (Scripted(0.5, 0.3), Mixup())]
    for script, same in cases:
        rest = Scripted(*script.answers[1:])
        mixed = MixupCutMix()(images, LABELS, None, script)
        assert torch.equal(mixed.images, same(images, LABELS, None, rest).images)


@pytest.mark.parametrize(
    ("use_cutmix", "lam"), [(True, 0.75), (True, 1 - 0.75**2), (False, 0.3), (False, 0.99)]
)
def test_mixup_cutmix_equals_timm(use_cutmix, lam, monkeypatch):
    """With the same random draws and even box sides (see `CutMix`)."""
    images, classes = torch.randn(4, 3, 16, 32), torch.arange(4)
    timm = TimmMixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=CLASSES)
    center = iter((13, 9))
    monkeypatch.setattr(timm, "_params_per_batch", lambda: (lam, use_cutmix))
    monkeypatch.setattr(np.random, "randint", lambda *args, **kwargs: np.int64(next(center)))
    monkeypatch.setattr("timm.data.mixup.one_hot", one_hot)
    theirs, their_labels = timm(images.clone(), classes)
    script = Scripted(0.0 if use_cutmix else 0.9, lam, 13, 9)
    ours = MixupCutMix()(images, soft_labels(classes, CLASSES, 0.1), None, script)
    torch.testing.assert_close(ours.images, theirs)
    torch.testing.assert_close(ours.labels, their_labels)


def one_hot(x, num_classes, on_value=1.0, off_value=0.0):
    """timm's function, on the CPU."""
    return F.one_hot(x, num_classes) * (on_value - off_value) + off_value


def test_mixup_cutmix_switches_at_its_probability():
    images, rng = torch.randn(2, 3, 8, 8), np.random.default_rng(0)
    mixed = [MixupCutMix(switch_prob=0.25)(images, LABELS, None, rng) for _ in range(1000)]
    pasted = [((m.images == images) | (m.images == images.flip(0))).all().item() for m in mixed]
    assert np.mean(pasted) == pytest.approx(0.25, abs=0.04)


# TransMix


def test_transmix_averages_area_and_attention():
    """The box covers rows 0 and 1, columns 0 to 3 of 4 x 4: half of the area, 0.7 of attention."""
    images = numbered_pixels(2, 4, 4)
    # switch; 1 - 0.75 leaves a side ratio of 0.5: a box of 2 x 2 around (1, 2)
    mixed = TransMix()(images, LABELS, None, Scripted(0.2, 0.75, 1, 2))
    assert torch.equal(mixed.images[0, :, 0:2, 1:3], images[1, :, 0:2, 1:3])
    torch.testing.assert_close(mixed.lam, torch.full((2, 1), 0.75))
    attention = torch.zeros(2, 4, 4)
    attention[:, 0, 1] = 0.35
    attention[0, 1, 2] = 0.14  # image 0: 0.49 of 0.7 on the source
    attention[0, 3, 3] = 0.21
    attention[1, 3, 3] = 0.35  # image 1: half
    labels = mixed.attentive_labels(attention, torch.zeros(2, CLASSES))
    weight = [(0.75 + 0.3) / 2, (0.75 + 0.5) / 2]
    torch.testing.assert_close(labels[0, :2], torch.tensor([weight[0], 1 - weight[0]]))
    torch.testing.assert_close(labels[1, :2], torch.tensor([1 - weight[1], weight[1]]))


def test_transmix_images_equal_cutmix():
    images = torch.randn(4, 3, 10, 7)
    labels = LABELS.repeat(2, 1)
    mixed = TransMix()(images, labels, None, Scripted(0.0, 0.3, 2, 6))
    same = CutMix()(images, labels, None, Scripted(0.3, 2, 6))
    assert torch.equal(mixed.images, same.images)
    torch.testing.assert_close(mixed.labels, same.labels)


@pytest.mark.parametrize("mixer", [TransMix(), MixPro(), TokenMix(), SMMix()], ids=name)
def test_the_other_branch_has_fixed_labels(mixer):
    mixed = mixer(torch.randn(2, 3, 8, 8), LABELS, FixedGuide((4, 4)), Scripted(0.9, 0.7, 0.4))
    assert mixed.attentive_labels is None
    torch.testing.assert_close(mixed.labels.sum(1), torch.ones(2))


def test_attentive_labels_reach_the_loss(tiny_module):
    """Labels follow the class token's attention in the training pass."""
    guide = GuideConfig(readout="class")
    backbone = Backbone("vit_tiny_patch16_224", 10, 32, guide=guide, model_args=TINY)
    backbone.load_state_dict(tiny_module.backbone.state_dict())
    criterion = SMMixLoss(backbone.eval())
    images = torch.randn(4, 3, 32, 32)
    labels = soft_labels(torch.arange(4), 10)
    mixed = TransMix()(images, labels, backbone, Scripted(0.0, 0.5, 16, 16))
    logits, _, attention, _ = backbone.features(mixed.images, with_attention=True)
    targets = mixed.attentive_labels(attention, logits)
    assert not torch.allclose(targets, mixed.labels, atol=1e-3)
    loss = -(targets * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(criterion.terms(mixed)["classification"], loss)


@pytest.mark.parametrize(
    ("mixer", "attention", "expected"),
    [
        (TransMix(), None, "class"),
        (MixPro(), None, "class"),
        (SMMix(), None, "tokens"),
        (SMMix(), "class", "class"),
        (TransMix(), "tokens", "tokens"),
    ],
)
def test_the_mixer_selects_the_readout(mixer, attention, expected):
    module = SMMixModule(
        10, (32, 32), 4, mixer, backbone="vit_tiny_patch16_224", backbone_args=TINY,
        guide=GuideConfig(readout=attention),
    )  # fmt: skip
    assert module.backbone.readout == expected


def test_a_model_without_a_class_token_is_rejected():
    with pytest.raises(InputError, match="pvt_v2_b0"):
        SMMixModule(10, (64, 64), 4, TransMix(), backbone="pvt_v2_b0")


# MixPro


def test_maskmix_keeps_a_fraction_of_cells_at_random_places():
    """A 6 x 6 grid in cells of 4 tokens has 2 x 2 cells, cut at the border."""
    mixer = MixPro(alpha=1.0)
    mask = mixer.cell_mask(2000, (6, 6), np.random.default_rng(3))
    for cell in (mask[:, :4, :4], mask[:, :4, 4:], mask[:, 4:, :4], mask[:, 4:, 4:]):
        assert (cell == cell[:, :1, :1]).all()
    corners = mask[:, ::4, ::4].flatten(1)
    assert corners.sum(1).unique().numel() == 1  # one fraction per batch
    kept = 4 - int(corners[0].sum())
    rates = (~corners).float().mean(0)
    torch.testing.assert_close(rates, torch.full((4,), kept / 4), atol=0.05, rtol=0)


@pytest.mark.parametrize(("lam", "kept"), [(0.0, 0), (0.01, 1), (0.5, 8), (0.51, 9), (1.0, 16)])
def test_maskmix_rounds_the_number_of_target_cells_up(lam, kept):
    class Beta:
        beta = staticmethod(lambda *args: lam)
        permuted = staticmethod(lambda values, axis: values.copy())

    mask = MixPro(cell_side=2).cell_mask(1, (8, 8), Beta())
    assert int((~mask).sum()) == 4 * kept


def test_pal_interpolates_between_area_and_attention():
    """Cosine of (0.5, 0.5) with a softmax of (0.8, 0.2): 0.5 / (sqrt 0.5 sqrt 0.68)."""
    images, labels = numbered_pixels(2, 4, 4), torch.eye(2)
    mask = torch.tensor([[[True, False], [False, True]]]).expand(2, 2, 2)
    mixer = MixPro(switch_prob=1)
    mixer.cell_mask = lambda batch, grid, rng: mask
    mixed = mixer(images, labels, FixedGuide((2, 2)), np.random.default_rng(0))
    torch.testing.assert_close(mixed.lam, torch.full((2, 1), 0.5))
    attention = torch.tensor([[[0.6, 0.1], [0.1, 0.0]], [[0.0, 0.5], [0.25, 0.25]]])
    logits = torch.tensor([[0.8, 0.2], [0.2, 0.8]]).log()
    alpha = 0.5 / math.sqrt(0.5 * 0.68)
    lam = [alpha * 0.25 + (1 - alpha) * 0.5, alpha * 0.75 + (1 - alpha) * 0.5]
    expected = torch.tensor([[lam[0], 1 - lam[0]], [1 - lam[1], lam[1]]])
    torch.testing.assert_close(mixed.attentive_labels(attention, logits), expected)


def test_pal_carries_gradient_as_in_the_authors_code():
    mixed = MixPro(switch_prob=1, cell_side=1)(
        numbered_pixels(2, 4, 4), LABELS, FixedGuide((4, 4)), np.random.default_rng(1)
    )
    logits = torch.randn(2, CLASSES, requires_grad=True)
    attention = FixedGuide((4, 4)).guide(torch.randn(2, 3, 4, 4)).attention
    mixed.attentive_labels(attention, logits)[:, 0].sum().backward()
    assert logits.grad.abs().sum() > 0


def test_maskmix_alone_has_area_labels():
    mixed = MixPro(switch_prob=1, progressive=False)(
        numbered_pixels(2, 8, 8), LABELS, FixedGuide((8, 8)), np.random.default_rng(0)
    )
    assert mixed.attentive_labels is None


# TokenMix


@given(st.tuples(st.integers(2, 16), st.integers(2, 16)), st.integers(0, 2**32 - 1), st.data())
def test_blocks_never_cover_more_than_requested(grid, seed, data):
    tokens = data.draw(st.integers(0, grid[0] * grid[1]))
    mask = block_mask(grid, tokens, np.random.default_rng(seed))
    assert mask.shape == grid
    assert mask.sum() <= tokens


def test_blocks_cover_112_of_196_tokens_almost_always():
    covered = [block_mask((14, 14), 112, np.random.default_rng(i)).sum() for i in range(200)]
    assert max(covered) == 112
    assert np.mean(covered) > 109


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        # a square of area 4 in the corner, then one token, at (3, 3)
        ((4.0, 0.0, 0, 0, 1.0, 0.0, 3, 3), {(0, 0), (0, 1), (1, 0), (1, 1), (3, 3)}),
        # the second block is inside the first and drawn again; the third adds one token
        (
            (4.0, 0.0, 0, 0, 1.0, 0.0, 1, 1, 2.0, math.log(2), 1, 1),
            {(0, 0), (0, 1), (1, 0), (1, 1), (2, 1)},
        ),
    ],
)
def test_blocks_worked_out_by_hand(answers, expected):
    mask = block_mask((4, 4), 5, Scripted(*answers))
    assert {tuple(place) for place in np.argwhere(mask).tolist()} == expected


def test_tokenmix_with_a_teacher_weights_the_visible_parts():
    images = numbered_pixels(2, 2, 2)
    mixer = TokenMix(switch_prob=1, source_fraction=0.5)
    mixer.teacher = Fixed(torch.tensor([[[0.4, 0.1], [0.3, 0.2]], [[0.1, 0.2], [0.3, 0.4]]]))
    rng = np.random.default_rng(0)
    mixed = mixer(images, LABELS, FixedGuide((2, 2)), rng)
    mask = mixed.images[0, 0] == images[1, 0]
    assert 0 < mask.sum() < 4
    for i in (0, 1):
        of_target = mixer.teacher.attention[i][~mask].sum()
        of_source = mixer.teacher.attention[1 - i][mask].sum()
        expected = of_target / (of_target + of_source)
        torch.testing.assert_close(mixed.lam[i, 0], expected)
        torch.testing.assert_close(mixed.labels[i, i], expected)


# Attentive CutMix


def test_attentive_cutmix_pastes_the_top_cells():
    """A 4 x 4 grid of tokens in 2 x 2 cells: image 1's bottom left cell holds the most."""
    attention = torch.zeros(2, 4, 4)
    attention[0, 0, 0] = 1.0
    attention[1, 2:, :2] = 0.2
    attention[1, 0, 3] = 0.15
    images = numbered_pixels(2, 8, 12)
    mixed = AttentiveCutMix(cells=1, grid=2)(images, LABELS, Fixed(attention), None)
    expected = images.clone()
    expected[0, :, 4:, :6] = images[1, :, 4:, :6]
    expected[1, :, :4, :6] = images[0, :, :4, :6]
    assert torch.equal(mixed.images, expected)
    torch.testing.assert_close(mixed.lam, torch.full((2, 1), 0.75))


def test_attentive_cutmix_lam_of_the_paper():
    images = torch.randn(2, 3, 28, 28)
    mixed = AttentiveCutMix()(images, LABELS, FixedGuide((14, 14)), None)
    torch.testing.assert_close(mixed.lam, torch.full((2, 1), 43 / 49))


def test_a_teacher_can_select_the_cells():
    attention = torch.zeros(2, 2, 2)
    attention[:, 1, 1] = 1.0
    mixer = AttentiveCutMix(cells=1, grid=2, teacher=Fixed(attention))
    images = numbered_pixels(2, 4, 4)
    mixed = mixer(images, LABELS, None, None)
    assert torch.equal(mixed.images[0, :, 2:, 2:], images[1, :, 2:, 2:])
    assert torch.equal(mixed.images[0, :, :2], images[0, :, :2])


# SaliencyMix


def saliency_by_loops(gray):
    """OpenCV's algorithm, pixel by pixel."""
    height, width = gray.shape
    for _ in range(2):
        padded = np.pad(gray, 1, mode="reflect").astype(int)
        smooth = np.zeros_like(gray)
        for y in range(height):
            for x in range(width):
                window = padded[y : y + 3, x : x + 3]
                total = (window * np.outer((1, 2, 1), (1, 2, 1))).sum()
                smooth[y, x] = (total + 8) // 16
        gray = smooth
    on, off = np.zeros(gray.shape), np.zeros(gray.shape)
    for reach in NEIGHBORHOODS:
        for y in range(height):
            for x in range(width):
                top, left = max(y - reach + 1, 0), max(x - reach + 1, 0)
                window = gray[top : y + reach + 1, left : x + reach + 1].astype(int)
                center = int(gray[y, x])
                mean = (window.sum() - center) / max(window.size - 1, 1)
                on[y, x] += math.floor(max(center - mean, 0))
                off[y, x] += math.floor(max(mean - center, 0))
    return sum(np.floor(255 * part / max(part.max(), 1)) for part in (on, off))


@pytest.mark.parametrize(("height", "width", "seed"), [(2, 3, 0), (9, 14, 1), (31, 27, 2)])
def test_fine_grained_saliency_equals_opencv(height, width, seed):
    gray = np.random.default_rng(seed).integers(0, 256, (2, height, width))
    ours = fine_grained_saliency(torch.from_numpy(gray).float())
    for image, levels in zip(ours, gray, strict=True):
        np.testing.assert_array_equal(image.numpy(), saliency_by_loops(levels))


def test_a_bright_spot_is_salient():
    gray = torch.full((1, 40, 50), 90.0)
    gray[0, 8:11, 30:33] = 200.0
    saliency = fine_grained_saliency(gray)
    assert saliency[0, 9, 31] == saliency.max()
    assert saliency[0, 9, 31] > saliency[0, 20:].max()
    assert fine_grained_saliency(torch.full((1, 6, 6), 7.0)).eq(0).all()


def test_gray_levels_span_eight_bits():
    images = torch.randn(3, 3, 5, 6) * 4 + 1
    levels = gray_levels(images)
    assert torch.equal(levels.amin((1, 2)), torch.zeros(3))
    assert torch.equal(levels.amax((1, 2)), torch.full((3,), 255.0))
    assert torch.equal(levels, levels.round())
    torch.testing.assert_close(gray_levels(2 * images + 3), levels, atol=1, rtol=0)
    assert gray_levels(torch.ones(1, 3, 4, 4)).eq(0).all()
    assert gray_levels(torch.rand(1, 1, 4, 4)).shape == (1, 4, 4)


@pytest.mark.parametrize("peak", ["first", "each"])
def test_saliencymix_boxes_are_around_the_peaks(peak):
    """Spots at (10, 20) in image 1 and (30, 6) in image 0; a side ratio of 0.25 gives 10 pixels."""
    images = torch.zeros(2, 3, 40, 40)
    images[0, :, 30, 6] = 1.0
    images[1, :, 10, 20] = 1.0
    script = Scripted(1 - 0.25**2)
    mixed = SaliencyMix(peak=peak)(images, LABELS, None, script)
    boxes = [(5, 15, 15, 25), (25, 35, 1, 11) if peak == "each" else (5, 15, 15, 25)]
    for i, (top, bottom, left, right) in enumerate(boxes):
        expected = images[i].clone()
        expected[:, top:bottom, left:right] = images[1 - i, :, top:bottom, left:right]
        assert torch.equal(mixed.images[i], expected)
    torch.testing.assert_close(mixed.lam, torch.full((2, 1), 1 - 100 / 1600))


# ResizeMix


def test_resizemix_shrinks_the_complete_source():
    """Scale 0.5 of 4 x 8: 2 x 4 pixels, every other one; centers (0, 7) and (3, 3)."""
    images = numbered_pixels(2, 4, 8)
    script = Scripted(0.5, np.array([0, 3]), np.array([7, 3]))
    mixed = ResizeMix()(images, LABELS, None, script)
    expected = images.clone()
    expected[0, :, 0:2, 4:8] = images[1, :, ::2, ::2]  # shifted inside the border
    expected[1, :, 2:4, 1:5] = images[0, :, ::2, ::2]
    assert torch.equal(mixed.images, expected)
    assert mixed.lam == 0.75


@given(batches(), st.floats(0.1, 0.8))
def test_resizemix_shrinks_like_interpolate(case, scale):
    images, labels, model, seed = case
    rng = np.random.default_rng(seed)
    mixed = ResizeMix(scale, scale)(images, labels, model, rng)
    height, width = int(images.shape[2] * scale), int(images.shape[3] * scale)
    if not height or not width:
        assert torch.equal(mixed.images, images)
        assert mixed.lam == 1
        return
    small = F.interpolate(images.float(), scale_factor=scale).flip(0)
    rng = np.random.default_rng(seed)
    rng.uniform()
    centers = [rng.integers(0, length, len(images)) for length in images.shape[2:]]
    for i in range(len(images)):
        if i == len(images) - 1 - i:
            continue
        top, left = (
            min(max(int(center[i]) - side // 2, 0), length - side)
            for center, side, length in zip(centers, (height, width), images.shape[2:], strict=True)
        )
        expected = images[i].float().clone()
        expected[:, top : top + height, left : left + width] = small[i]
        assert torch.equal(mixed.images[i].float(), expected)


# FMix


def test_fmix_noise_has_the_papers_spectrum():
    """Over many draws, power falls as f^-2 decay; it is flat below 1 / 16."""
    rng = np.random.default_rng(0)
    power = np.mean(
        [np.abs(np.fft.rfft2(low_frequency_image(12, 16, 3.0, rng))) ** 2 for _ in range(2000)],
        axis=0,
    )
    inner = power[1:6, 1:8]  # bins that irfft2 keeps
    frequency = np.hypot(np.fft.fftfreq(12)[1:6, None], np.fft.rfftfreq(16)[1:8])
    np.testing.assert_allclose(inner, 2 * frequency**-6.0, rtol=0.2)


def test_fmix_covers_the_lowest_pixels():
    image = np.array([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0]])
    assert lowest_pixels(image, 3).tolist() == [[False, True, True], [True, False, False]]
    assert not lowest_pixels(image, 0).any()


@given(st.integers(2, 20), st.integers(2, 20), st.integers(0, 2**32 - 1))
def test_fmix_area_is_lam_rounded_up_or_down(height, width, seed):
    drawn = np.random.default_rng(seed).beta(1.0, 1.0)
    images = torch.randn(2, 3, height, width)
    mixed = FMix()(images, LABELS, None, np.random.default_rng(seed))
    kept = float(mixed.lam[0, 0]) * height * width
    assert abs(kept - drawn * height * width) < 1 + 1e-3


# GridMix


def test_gridmix_pastes_complete_cells():
    images = numbered_pixels(2, 8, 12)
    mixed = GridMix(grid=4)(images, LABELS, None, np.random.default_rng(2))
    cells = (mixed.images[0, 0] == images[1, 0]).view(4, 2, 4, 3).float().mean(dim=(1, 3))
    assert set(cells.flatten().tolist()) <= {0.0, 1.0}
    kept = round(16 * np.random.default_rng(2).beta(1.0, 1.0))
    assert cells.sum() == 16 - kept
    torch.testing.assert_close(mixed.lam, torch.full((2, 1), kept / 16))


# Settings and steps


@pytest.mark.parametrize(
    "mixer", every(4, sorted({name(mixer) for mixer in [*PASTE_IN_PLACE, ResizeMix()]}))
)
def test_mixers_are_selected_by_name_on_the_command_line(mixer, capsys, monkeypatch):
    words = ["fit", "--config", "digits.yaml", "--model.mixer", mixer, "--print_config"]
    monkeypatch.setattr("sys.argv", ["lightning", *words])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert f"class_path: smmix_pl.{mixer}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("mixer", "option", "value"),
    [
        (MixupCutMix, "switch_prob", -0.1),
        (MixupCutMix, "cutmix_alpha", 0),
        (TransMix, "switch_prob", 2),
        (MixPro, "alpha", -1),
        (MixPro, "cell_side", 0),
        (TokenMix, "source_fraction", 1.0),
        (AttentiveCutMix, "cells", 49),
        (SaliencyMix, "alpha", 0.0),
        (ResizeMix, "min_scale", 0.9),
        (FMix, "decay", 0.0),
        (GridMix, "grid", 1),
    ],
)
def test_invalid_settings_name_the_option(mixer, option, value):
    with pytest.raises(InputError, match=f"model.mixer.{option}={value}"):
        mixer(**{option: value})


@pytest.mark.parametrize(
    "mixer", [*PASTE_IN_PLACE, ResizeMix(), MixupCutMix(), TokenMix(switch_prob=0)], ids=name
)
def test_a_training_step_is_finite_and_reaches_every_weight(mixer):
    torch.manual_seed(0)
    module = SMMixModule(
        10, (32, 32), 5, mixer, backbone="vit_tiny_patch16_224", backbone_args=TINY
    )
    labels = soft_labels(torch.arange(5), 10, 0.1)
    mixed = mixer(torch.randn(5, 3, 32, 32), labels, module.backbone, np.random.default_rng(0))
    losses = module.criterion.terms(mixed)
    assert losses.keys() == {"classification"}
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
