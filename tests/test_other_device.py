"""Training and evaluation run on a device other than the CPU."""

from pathlib import Path

import pytest
from helpers import fake_device, processes

NOTHING_COLLECTED = 5
PROGRAM = """
import sys

import pytest

sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "--disable-warnings", sys.argv[1]]))
"""


@pytest.mark.slow
def test_every_tensor_is_on_the_right_device(tmp_path):
    tests = Path(fake_device.__file__).with_name("training_on_fake_device.py")
    (tmp_path / "program.py").write_text(PROGRAM)
    done = processes.run("program.py", tests, cwd=tmp_path)
    if done.returncode == NOTHING_COLLECTED:
        pytest.skip("needs a torch that supports devices written in Python")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
