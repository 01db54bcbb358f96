"""Nothing takes the CPU for granted: all of it runs on a device that is not the CPU."""

import subprocess
import sys
from pathlib import Path

import pytest

NOTHING_COLLECTED = 5


def test_every_tensor_lies_where_it_belongs():
    tests = Path(__file__).with_name("on_other_device.py")
    words = ["-q", "-p", "no:cacheprovider", "--disable-warnings", "--show-capture=no"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, str(tests)],
        capture_output=True,
        text=True,
        timeout=240,
    )
    if done.returncode == NOTHING_COLLECTED:
        pytest.skip("needs a torch that takes devices written in Python")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
