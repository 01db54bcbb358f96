"""The torchrun command of the documentation, with two processes on this machine."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.processes import environment
from helpers.programs import run_here

ROOT = Path(__file__).parents[2]


def documented() -> list[str]:
    """Return the command of the page about clusters that runs on one machine."""
    text = (ROOT / "docs/clusters.md").read_text().replace("\\\n", " ")
    [line] = re.findall(r"^torchrun --standalone .*$", text, re.MULTILINE)
    return shlex.split(line)[1:]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_processes_train_as_one_does(tmp_path):
    small = ["--model.mixer=NoMix", "--model.backbone_args.depth=1", "--model.optim.name=sgd"]
    small += ["--trainer.limit_train_batches=8", "--trainer.log_every_n_steps=1"]
    small += ["--trainer.check_val_every_n_epoch=1", "--data.augment_on=host"]
    for folder in ("two", "one"):
        (tmp_path / folder).mkdir()
    words = documented()
    result = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words, *small],
        cwd=tmp_path / "two",
        env=environment({"PYTHONPATH": str(ROOT)}),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    own = words[words.index("fit") :] + small
    run_here(*own, "--trainer.devices=1", "--data.batch_size=32", cwd=tmp_path / "one")
    found = {}
    for folder, ranks in (("two", 2), ("one", 1)):
        [file] = (tmp_path / folder).rglob("results.json")
        results = json.loads(file.read_text())
        assert results["run"]["ranks"] == ranks
        found[folder] = results["metrics"]
    for name in ("top1", "nll", "ece", "occlusion_50"):
        assert found["two"][name]["images"] == found["one"][name]["images"] == 359
        assert found["two"][name]["value"] == pytest.approx(found["one"][name]["value"], abs=0.02)
    assert len(re.findall(r"│ top-1 +│", result.stdout)) == 1
