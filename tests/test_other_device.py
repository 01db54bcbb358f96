"""Training and evaluation run on a device other than the CPU."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import fake_device

NOTHING_COLLECTED = 5


def test_every_tensor_is_on_the_right_device():
    tests = Path(fake_device.__file__).with_name("training_on_fake_device.py")
    words = ["-q", "-p", "no:cacheprovider", "--disable-warnings", "--show-capture=no"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, str(tests)],
        capture_output=True,
        text=True,
        timeout=240,
    )
    if done.returncode == NOTHING_COLLECTED:
        pytest.skip("needs a torch that supports devices written in Python")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
