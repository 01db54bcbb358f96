"""Plans: the arithmetic, and the command on a tiny model."""

import re

import pytest
from helpers.programs import TINY_FLAGS, refusal, run_here
from hypothesis import given
from hypothesis import strategies as st

from smmix_pl.cli.main import main
from smmix_pl.cli.plan import Plan, expected_seconds

SMALL = ["--config", "deit_t.yaml", *TINY_FLAGS, "--data.batch_size=4", "--trainer.precision=32"]
plans = st.builds(
    Plan,
    seconds=st.floats(1e-4, 1e3),
    batch=st.integers(1, 512),
    images=st.integers(512 * 64, 10**7),
    epochs=st.integers(1, 1000),
    devices=st.integers(1, 64),
)


@given(plans)
def test_hours_are_images_over_throughput(plan):
    """An incomplete last batch is dropped."""
    trained = plan.images - plan.images % (plan.batch * plan.devices)
    assert plan.hours * 3600 == pytest.approx(plan.epochs * trained / plan.images_per_second)
    assert plan.device_hours == pytest.approx(plan.hours * plan.devices)


@given(plans, st.integers(2, 8))
def test_more_devices_raise_throughput_but_not_device_hours_per_image(plan, times):
    more = Plan(plan.seconds, plan.batch, plan.images * times, plan.epochs, plan.devices * times)
    assert more.images_per_second == pytest.approx(times * plan.images_per_second)
    assert more.hours == pytest.approx(plan.hours)
    assert more.device_hours == pytest.approx(times * plan.device_hours)


@given(
    st.lists(st.floats(1e-4, 10), min_size=1), st.lists(st.floats(1e-4, 10), min_size=1), st.data()
)
def test_expected_seconds_are_the_weighted_mean_of_the_branches(own, other, data):
    probability = data.draw(st.floats(0, 1))
    expected = expected_seconds({1.0: own, 0.0: other}, probability)
    alone = [expected_seconds({None: times}, probability) for times in (own, other)]
    assert expected == pytest.approx(probability * alone[0] + (1 - probability) * alone[1])


def test_the_command_measures_steps_and_needs_no_data(tmp_path):
    options = ["--images=800", "--devices=4", "--nodes=2", "--steps=6", "--data.root=nowhere"]
    printed = run_here("plan", *SMALL, *options, cwd=tmp_path)
    for text in ("vit_tiny_patch16_224", "SMMix", "32 x 32", "300 epochs", "800 images"):
        assert text in printed
    numbers = re.findall(r"^(\S.*?)  +([\d.]+)$", printed, re.MULTILINE)
    values = {name: float(value) for name, value in numbers}
    seconds = values["seconds per step"]
    assert values["images per second"] == pytest.approx(32 / seconds, rel=1e-3)
    assert values["hours"] == pytest.approx(300 * 25 * seconds / 3600, rel=1e-3)
    assert values["device-hours"] == pytest.approx(8 * values["hours"], rel=1e-3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ([], ["--config"]),
        (["--config=deit_x"], ["--config=deit_x", "deit_t.yaml"]),
        ([*SMALL, "--devices=0"], ["--devices=0"]),
        ([*SMALL, "--images=many"], ["--images", "many"]),
        ([*SMALL, "--model.bakbone=x"], ["model.bakbone", "model.backbone"]),
        ([*SMALL, "--trainer.max_epochs=-1"], ["trainer.max_epochs=-1"]),
        ([*SMALL, "--steps=2"], ["--steps"]),
        ([*SMALL, "--images=3"], ["--images=3"]),
    ],
)
def test_invalid_option_is_reported(options, named, capsys):
    error = refusal(main, ["plan", *options], capsys)
    assert all(name in error for name in named), error
