"""The planner: its arithmetic, and a real measurement."""

import re

import pytest
from conftest import TINY_FLAGS, run_cli
from hypothesis import given
from hypothesis import strategies as st

from smmix_pl.plan import Plan

COUNTS = st.integers(1, 10**6)


@given(COUNTS, COUNTS, st.integers(1, 512), st.floats(0.1, 1e5))
def test_hours_times_images_per_second_are_the_images(images, epochs, devices, speed):
    plan = Plan(images, epochs, devices, speed)
    assert plan.device_hours == pytest.approx(plan.hours * devices)
    assert plan.hours * 3600 * speed * devices == pytest.approx(images * epochs)
    assert Plan(images, epochs, 2 * devices, speed).device_hours == plan.device_hours


def plan(folder, *words):
    flags = [word for word in TINY_FLAGS if "num_workers" not in word]
    return run_cli("-m", "smmix_pl.plan", *words, *flags, cwd=folder, program="python")


def test_a_recipe_is_measured_and_told_in_hours(tmp_path):
    words = ("--config", "deit_t.yaml", "--devices=4", "--nodes=2", "--steps=5")
    result = plan(tmp_path, *words, "--data.batch_size=8")
    assert result.returncode == 0, result.stderr[-2000:]
    told = result.stdout
    assert "vit_tiny_patch16_224 with SMMix, 8 images of 32 x 32 a step" in told
    assert "mean of 5 (" in told
    speed = float(re.search(r"([\d.]+) images/s", told)[1])
    found = re.search(r"300 epochs of 1281167 images on 8 such devices: ([\d.]+) hours", told)
    assert float(found[1]) == pytest.approx(1281167 * 300 / speed / 8 / 3600, rel=0.1)
    assert not list(tmp_path.iterdir())  # a plan leaves nothing behind


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "no recipe is given; --config deit_t.yaml names one"),
        (("--config", "digits.yaml"), "of Digits is not known; give --images"),
        (("--config", "deit_t.yaml", "--devices=0"), "--devices is 0"),
        (("--config", "deit_x.yaml"), "there is no config 'deit_x.yaml'"),
        (("--config", "deit_t.yaml", "--model.backbon=x"), "backbon"),
    ],
)
def test_what_cannot_be_planned_is_told_in_a_sentence(tmp_path, words, told):
    if words:
        result = plan(tmp_path, *words)
    else:
        result = run_cli("-m", "smmix_pl.plan", cwd=tmp_path, program="python")
    assert result.returncode == 2, result.stdout
    [sentence] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert told in sentence
    assert "Traceback" not in result.stderr
