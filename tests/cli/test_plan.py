"""Plans: the arithmetic, and the real command on a tiny model."""

import os
import re
import subprocess
import sys

import pytest
from helpers.programs import TINY_FLAGS, refusal
from hypothesis import given
from hypothesis import strategies as st

from smmix_pl.cli.plan import Plan, expected_seconds, main

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
def test_hours_are_images_over_speed_up_to_a_last_batch(plan):
    seen = plan.images - plan.images % (plan.batch * plan.devices)
    assert plan.hours * 3600 == pytest.approx(plan.epochs * seen / plan.images_per_second)
    assert plan.device_hours == pytest.approx(plan.hours * plan.devices)


@given(plans, st.integers(2, 8))
def test_device_hours_do_not_grow_with_devices_and_speed_does(plan, times):
    more = Plan(plan.seconds, plan.batch, plan.images * times, plan.epochs, plan.devices * times)
    assert more.images_per_second == pytest.approx(times * plan.images_per_second)
    assert more.hours == pytest.approx(plan.hours)  # as many images a device
    assert more.device_hours == pytest.approx(times * plan.device_hours)


@given(
    st.lists(st.floats(1e-4, 10), min_size=1), st.lists(st.floats(1e-4, 10), min_size=1), st.data()
)
def test_expected_seconds_lie_between_the_branches(own, other, data):
    share = data.draw(st.floats(0, 1))
    expected = expected_seconds({1.0: own, 0.0: other}, share)
    alone = [expected_seconds({None: times}, share) for times in (own, other)]
    assert min(alone) * (1 - 1e-9) <= expected <= max(alone) * (1 + 1e-9)
    assert expected == pytest.approx(share * alone[0] + (1 - share) * alone[1])


def test_the_command_measures_real_steps_and_needs_no_data(tmp_path):
    words = [*SMALL, "--images=800", "--devices=4", "--nodes=2", "--steps=6", "--data.root=nowhere"]
    result = subprocess.run(
        [sys.executable, "-m", "smmix_pl.cli.plan", *words],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "vit_tiny_patch16_224, SMMix, 32 x 32 pixels, 32-true, 4 images" in result.stdout
    assert "300 epochs of 800 images on 8 devices, assumed 8 times as fast" in result.stdout
    assert "Data loading, validation and checkpoints are not counted" in result.stdout
    numbers = re.findall(r"^(\S.*?)  +([\d.]+)$", result.stdout, re.MULTILINE)
    told = {name: float(value) for name, value in numbers}
    seconds = told["seconds per step"]
    assert told["images per second"] == pytest.approx(32 / seconds, rel=1e-3)
    assert told["hours"] == pytest.approx(300 * 25 * seconds / 3600, rel=1e-3)
    assert told["device-hours"] == pytest.approx(8 * told["hours"], rel=1e-3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "no recipe is named; give --config"),
        (["--config=deit_x"], "there is no config 'deit_x'.*did you mean"),
        ([*SMALL, "--devices=0"], "--devices is 0; it must be a finite number, at least 1"),
        ([*SMALL, "--images=many"], "argument --images: invalid int value: 'many'"),
        ([*SMALL, "--model.bakbone=x"], "did you mean model.backbone"),
        ([*SMALL, "--trainer.max_epochs=-1"], "names no trainer.max_epochs"),
        ([*SMALL, "--steps=2"], "one of the mixer's branches; raise --steps"),
        ([*SMALL, "--images=3"], "takes 4 images on each of 8 devices"),
    ],
)
def test_bad_input_is_one_sentence(words, sentence, capsys):
    assert re.search(sentence, refusal(main, words, capsys))
