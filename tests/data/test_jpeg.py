"""JPEG decoding: the pixels of Pillow, or a file that is left to Pillow."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from smmix_pl.data.io.jpeg import decode_jpeg


def encoded(width, height, mode="RGB", seed=0, **options):
    """Return a JPEG of noise with a gradient."""
    noise = np.random.default_rng(seed).integers(0, 64, (height, width, 3))
    ramp = np.linspace(0, 190, width)[None, :, None]
    image = Image.fromarray((noise + ramp).astype(np.uint8)).convert(mode)
    file = BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


@given(
    *(st.integers(1, 70), st.integers(1, 70), st.sampled_from(["RGB", "L"])),
    *(st.sampled_from([0, 1, 2]), st.integers(5, 100), st.booleans()),
)
def test_pixels_are_those_of_pillow(width, height, mode, subsampling, quality, progressive):
    content = encoded(
        *(width, height, mode),
        **{"subsampling": subsampling, "quality": quality, "progressive": progressive},
    )
    image = Image.open(BytesIO(content))
    pixels = decode_jpeg(image)
    assert np.array_equal(pixels, np.asarray(Image.open(BytesIO(content)).convert("RGB")))
    assert np.array_equal(pixels, np.asarray(image.convert("RGB")))  # which reads the file again


def test_rotation_in_the_metadata_is_ignored_as_by_pillow():
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    content = encoded(30, 20, exif=exif)
    assert decode_jpeg(Image.open(BytesIO(content))).shape == (20, 30, 3)


@pytest.mark.parametrize("kind", ["PNG", "CMYK", "truncated", "decoded"])
def test_other_files_are_left_to_pillow(kind):
    file = BytesIO()
    if kind == "PNG":
        Image.new("RGB", (8, 8)).save(file, "PNG")
    elif kind == "CMYK":
        file.write(encoded(20, 20, "CMYK"))
    else:
        content = encoded(60, 60)
        file.write(content[: len(content) // 2] if kind == "truncated" else content)
    file.seek(0)
    image = Image.open(file)
    if kind == "decoded":
        image = image.copy()
    assert decode_jpeg(image) is None
