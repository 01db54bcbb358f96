"""The GPU benchmarks: all parts on the CPU with tiny sizes, the report, and augmentation."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import processes
from torchvision.transforms.functional import crop, hflip

ROOT = Path(__file__).parents[2]
PARTS = ("tests", "steps", "loader", "overhead", "cifar")


def report(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "benchmarks/gpu_report.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def smoke_run(tmp_path_factory) -> dict[str, dict]:
    out = tmp_path_factory.mktemp("gpu") / "out"
    command = [str(ROOT / "benchmarks/gpu.sh"), "--smoke", str(out)]
    environment = os.environ | {"PYTHON": sys.executable, "CARRY": str(out / "none")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=560)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    parts = {name: json.loads((out / f"{name}.json").read_text()) for name in PARTS}
    return parts | {"out": out}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_smoke_run_completes_every_part(smoke_run):
    for name in PARTS:
        part = smoke_run[name]
        assert part["status"] == "complete"
        assert part["smoke"] and part["results"] and not part["problems"]
        assert part["environment"]["torch"] == torch.__version__.split("+")[0]
        assert part["environment"]["commit"]

    outcomes = {row["outcome"] for row in smoke_run["tests"]["results"]}
    assert outcomes == {"passed", "skipped"}

    steps = smoke_run["steps"]["results"]
    assert all(row["images_per_second"] > 0 and row["gflop_per_image"] > 0 for row in steps)
    assert len({row["variant"] for row in steps}) == 7
    assert len({row["model"] for row in steps}) == 3
    assert {row["compiled"] for row in steps} == {False, True}
    assert all(row["step_over_cutmix"] == 1 for row in steps if row["variant"] == "CutMix")
    flops = {row["variant"]: row["gflop_per_image"] for row in steps if row["compiled"]}
    assert flops["SMMix branch"] > flops["SMMix as trained"] > flops["CutMix"]

    loaders = {row["loader"]: row for row in smoke_run["loader"]["results"]}
    assert set(loaders) == {"timm", "ours", "ours, augmented on the device"}
    assert all(row["images_per_second"] > 0 for row in loaders.values())
    assert all(row["over_training_step"] > 0 for row in loaders.values())

    variants = smoke_run["overhead"]["results"]
    assert [row["waits"] for row in variants] == [None, 0, None]
    assert all(row["ms"] > 0 and row["ms_logged"] > 0 for row in variants)

    runs = smoke_run["cifar"]["results"]
    assert {row["method"] for row in runs} == {"no mixing", "TransMix", "SMMix"}
    for row in runs:
        assert row["epochs"] == row["planned_epochs"] == 1
        assert all(0 <= row[name] <= 1 for name in ("top1", "ece", "occlusion_50"))


@pytest.mark.slow
def test_report_prints_a_table_of_each_part(smoke_run, tmp_path):
    out = str(smoke_run["out"])
    shown = report(out, "--include-smoke").stdout
    assert "not measured yet" not in shown
    for text in (
        "| passed |",
        "| deit_small_patch16_224 | SMMix branch |",
        "| timm |",
        "| SMMix |",
    ):
        assert text in shown

    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- gpu:begin -->\nold\n<!-- gpu:end -->\nafter\n")
    assert report(out, "--write", "--readme", str(readme)).returncode == 0
    written = readme.read_text()
    assert written.startswith("before\n") and written.endswith("after\n")
    assert "old" not in written
    assert written.count("not measured yet") == len(PARTS)  # smoke results are no measurement


def test_report_needs_markers(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("no markers\n")
    result = report(str(tmp_path), "--write", "--readme", str(readme))
    assert result.returncode == 1
    assert str(readme) in result.stderr
    assert readme.read_text() == "no markers\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_a_part_names_the_option(tmp_path):
    result = processes.run(ROOT / "benchmarks/gpu_loader.py", "--out", tmp_path, cwd=tmp_path)
    assert result.returncode == 2
    assert "--smoke" in result.stderr


def test_crops_and_flips_equal_torchvision(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from gpu_cifar_run import PADDING, crop_and_flip

    images = torch.randint(256, (6, 3, 8, 8), dtype=torch.uint8)
    padded = torch.nn.functional.pad(images, [PADDING] * 4)
    index = torch.tensor([5, 0, 2, 2])
    top, left = torch.tensor([0, 3, 8, 4]), torch.tensor([8, 0, 1, 4])
    flip = torch.tensor([True, False, True, False])
    found = crop_and_flip(padded, index, top, left, flip, side=8)
    for row, image in enumerate(index):
        expected = crop(padded[image], int(top[row]), int(left[row]), 8, 8)
        assert torch.equal(found[row], hflip(expected) if flip[row] else expected)
