"""Common corruptions compared with scipy, matplotlib, Pillow, and the published formulas."""

from io import BytesIO

import numpy as np
import pytest
import torch
from helpers.digits import accuracy, complete_test_set, metrics_on_digits
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image
from scipy import ndimage
from sklearn.datasets import load_sample_image

from smmix_pl import Digits, InputError
from smmix_pl.callbacks import Corruptions
from smmix_pl.data.transforms import denormalize, normalize
from smmix_pl.robustness.corruptions import REPORTED, SEVERITIES, corrupt

SIZES = {"imagenet": 224, "cifar": 32}
NOISES = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise")


@pytest.fixture(scope="module")
def photographs():
    """Return two photographs at the size of each set of constants, `(2, 3, S, S)`."""

    def photograph(name, size):
        image = Image.fromarray(load_sample_image(name)).crop((100, 100, 400, 400))
        return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))

    def batch(size):
        images = np.stack([photograph(name, size) for name in ("china.jpg", "flower.jpg")])
        return torch.from_numpy(images).permute(0, 3, 1, 2) / 255

    return {constants: batch(size) for constants, size in SIZES.items()}


def corrupted(images, name, severity, constants, seed=0, places=(0, 1)):
    return corrupt(images, name, severity, constants, seed, places)


def picture(image):
    """Convert `(3, H, W)` to `(H, W, 3)` float64."""
    return image.permute(1, 2, 0).double().numpy()


def rounded_down(image):
    """Round as the authors do, `np.uint8(np.clip(x, 0, 1) * 255)`, tolerating float32 rounding."""
    return np.floor(np.clip(image, 0, 1) * 255 + 1e-3)


def assert_same_pixels(ours, theirs):
    """Allow a difference of 1 in few pixels: nearly equal numbers may be floored differently."""
    difference = np.abs(255 * picture(ours) - rounded_down(theirs))
    assert difference.max() < 1.001
    assert (difference > 0.5).mean() < 2e-3


@pytest.mark.parametrize("constants", SIZES)
@pytest.mark.parametrize("name", SEVERITIES)
def test_each_severity_is_valid_repeatable_and_worse_than_the_one_below(
    name, constants, photographs
):
    images = photographs[constants]
    original = images.clone()
    distances = []
    for severity in range(1, 6):
        first = corrupted(images, name, severity, constants)
        assert first.shape == images.shape
        assert first.dtype == images.dtype
        assert first.min() >= 0
        assert first.max() <= 1
        torch.testing.assert_close(255 * first, (255 * first).round(), atol=1e-4, rtol=0)
        [alone] = corrupted(images[1:], name, severity, constants, places=[1])
        assert torch.equal(first[1], alone)  # whatever else is in the batch
        distances.append(float((first - images).abs().mean()))
    assert torch.equal(images, original)
    assert distances[0] > 0
    if name == "saturate":  # severities 1 and 2 reduce the saturation, 3 to 5 increase it
        assert distances[0] < distances[1]
        assert distances[2] < distances[3] < distances[4]
    else:
        assert all(np.diff(distances) > 0)


@pytest.mark.parametrize("name", NOISES)
def test_noise_depends_on_seed_and_place_only(name, photographs):
    images = photographs["cifar"]
    first = corrupted(images, name, 3, "cifar")
    assert not torch.equal(first, corrupted(images, name, 3, "cifar", seed=1))
    assert torch.equal(first.flip(0), corrupted(images.flip(0), name, 3, "cifar", places=[1, 0]))


def test_noises_have_the_published_moments():
    gray = torch.full((1, 3, 256, 256), 0.5)

    def noise(name, severity, constants="imagenet"):
        return corrupted(gray, name, severity, constants, places=[0]) + 0.5 / 255

    assert noise("gaussian_noise", 1).std() == pytest.approx(0.08, rel=0.02)
    assert noise("speckle_noise", 1).std() == pytest.approx(0.15 / 2, rel=0.02)
    shot = noise("shot_noise", 1)  # Poisson: variance x / photons
    assert shot.mean() == pytest.approx(0.5, abs=2e-3)
    assert shot.std() == pytest.approx((0.5 / 60) ** 0.5, rel=0.02)
    impulse = corrupted(gray, "impulse_noise", 5, "imagenet", places=[0])
    for value in (0.0, 1.0):
        assert (impulse == value).float().mean() == pytest.approx(0.27 / 2, rel=0.02)


@pytest.mark.parametrize(("constants", "severity"), [("imagenet", 2), ("cifar", 5)])
def test_gaussian_blur_equals_scipy(constants, severity, photographs):
    image = photographs[constants][0]
    sigma = SEVERITIES["gaussian_blur"][constants][severity - 1]
    theirs = ndimage.gaussian_filter(
        picture(image), (sigma, sigma, 0), mode="nearest", truncate=4.0
    )
    assert_same_pixels(corrupted(image[None], "gaussian_blur", severity, constants)[0], theirs)


def authors_disk(radius, blur):
    """Return `disk` of the authors' create_c, with OpenCV's Gaussian written out."""
    side, smooth = (np.arange(-8, 9), 3) if radius <= 8 else (np.arange(-radius, radius + 1), 5)
    x, y = np.meshgrid(side, side)
    disk = np.array((x**2 + y**2) <= radius**2, dtype=np.float64)
    disk /= disk.sum()
    at = np.arange(smooth) - smooth // 2
    weights = np.exp(-(at**2) / (2 * blur**2))
    weights /= weights.sum()
    return ndimage.correlate(disk, np.outer(weights, weights), mode="mirror")


@pytest.mark.parametrize(
    ("constants", "severity"), [("imagenet", 1), ("imagenet", 5), ("cifar", 3)]
)
def test_defocus_blur_equals_the_authors_disk(constants, severity, photographs):
    image = photographs[constants][1]
    disk = authors_disk(*SEVERITIES["defocus_blur"][constants][severity - 1])
    channels = [ndimage.correlate(x, disk, mode="mirror") for x in image.double().numpy()]
    ours = corrupted(image[None], "defocus_blur", severity, constants)[0]
    assert_same_pixels(ours, np.stack(channels, axis=2))


def authors_zoom(image, factor):
    """Return `clipped_zoom` of the authors' create_c, for square images."""
    side = image.shape[0]
    crop = int(np.ceil(side / factor))
    top = (side - crop) // 2
    middle = image[top : top + crop, top : top + crop]
    large = ndimage.zoom(middle, (factor, factor, 1), order=1)
    trim = (large.shape[0] - side) // 2
    return large[trim : trim + side, trim : trim + side]


@pytest.mark.parametrize(("constants", "severity"), [("imagenet", 3), ("cifar", 1)])
def test_zoom_blur_equals_the_mean_of_scipy_zooms(constants, severity, photographs):
    image = photographs[constants][0]
    factors = np.arange(1, *SEVERITIES["zoom_blur"][constants][severity - 1])
    zoomed = [picture(image), *(authors_zoom(picture(image), factor) for factor in factors)]
    theirs = np.mean(zoomed, axis=0)
    assert_same_pixels(corrupted(image[None], "zoom_blur", severity, constants)[0], theirs)


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_brightness_and_saturation_equal_matplotlib_hsv(severity, photographs):
    image = photographs["imagenet"][1]
    hsv = rgb_to_hsv(picture(image))
    added = SEVERITIES["brightness"]["imagenet"][severity - 1]
    value = np.clip(hsv[..., 2] + added, 0, 1)
    bright = hsv_to_rgb(np.stack((hsv[..., 0], hsv[..., 1], value), axis=2))
    assert_same_pixels(corrupted(image[None], "brightness", severity, "imagenet")[0], bright)
    factor, added = SEVERITIES["saturate"]["imagenet"][severity - 1]
    saturation = np.clip(hsv[..., 1] * factor + added, 0, 1)
    vivid = hsv_to_rgb(np.stack((hsv[..., 0], saturation, hsv[..., 2]), axis=2))
    assert_same_pixels(corrupted(image[None], "saturate", severity, "imagenet")[0], vivid)


def test_contrast_keeps_the_mean_and_scales_the_deviation(photographs):
    images = 0.25 + photographs["imagenet"] / 2  # so that nothing is clipped
    ours = corrupted(images, "contrast", 1, "imagenet") + 0.5 / 255
    mean, deviation = images.mean((2, 3)), images.std((2, 3))
    torch.testing.assert_close(ours.mean((2, 3)), mean, atol=1e-3, rtol=0)
    torch.testing.assert_close(ours.std((2, 3)), 0.4 * deviation, atol=1e-3, rtol=0)


def test_jpeg_and_pixelate_equal_pillow(photographs):
    image = photographs["imagenet"][0]
    original = Image.fromarray((255 * picture(image)).round().astype(np.uint8))
    buffer = BytesIO()
    original.save(buffer, "JPEG", quality=15)
    compressed = np.asarray(Image.open(buffer)) / 255
    assert_same_pixels(corrupted(image[None], "jpeg_compression", 3, "imagenet")[0], compressed)
    small = original.resize((89, 89), Image.Resampling.BOX)  # int(0.4 * 224)
    coarse = np.asarray(small.resize((224, 224), Image.Resampling.BOX)) / 255
    assert_same_pixels(corrupted(image[None], "pixelate", 3, "imagenet")[0], coarse)


def test_accuracies_are_those_of_the_corrupted_images(tiny_module):
    names = ["contrast", "shot_noise"]
    callback = Corruptions(names, severities=[5, 1], seed=2)
    metrics = metrics_on_digits(tiny_module, callback)
    images, classes = complete_test_set()
    mean, std = Digits.own_mean, Digits.own_std
    expected = {}
    for name in names:
        for severity in (1, 5):
            plain = denormalize(images, mean, std)
            corrupted = corrupt(plain, name, severity, "cifar", 2, range(359))
            cell = accuracy(tiny_module, normalize((255 * corrupted).round(), mean, std), classes)
            expected[f"test/corruption_{name}_{severity}"] = cell
    expected["test/corruption_mean"] = sum(expected.values()) / 4
    measured = {name: value for name, value in metrics.items() if "corruption" in name}
    assert measured == pytest.approx(expected, abs=2 / 359)
    assert callback.result.protocol["constants"] == "cifar"  # below 64 pixels


def test_denormalized_pixels_are_integers():
    images, _ = complete_test_set()
    pixels = 255 * denormalize(images, Digits.own_mean, Digits.own_std)
    torch.testing.assert_close(pixels, pixels.round(), atol=1e-3, rtol=0)


def test_the_default_is_the_nine_reported_corruptions():
    assert Corruptions().names == list(REPORTED)
    assert len(set(REPORTED)) == 9


def test_invalid_arguments_are_rejected():
    with pytest.raises(InputError, match=r"Corruptions\.names=gausian_noise:.*gaussian_noise"):
        Corruptions(["gausian_noise"])
    with pytest.raises(InputError, match=r"Corruptions\.severities=\[0, 1\]:"):
        Corruptions(severities=[0, 1])
    with pytest.raises(InputError, match=r"Corruptions\.severities=\[\]:"):
        Corruptions(severities=[])
