"""The complete evaluation suite on the command line, its files, and comparisons of runs."""

import csv
import json
import math
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import processes
from helpers.digits import digits, quiet_trainer
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from sklearn.metrics import auc

from smmix_pl import InputError, NoMix, OptimConfig, SMMixModule
from smmix_pl.callbacks import Calibration, Occlusion, ResultsFile
from smmix_pl.callbacks.output import results_file
from smmix_pl.cli.main import main
from smmix_pl.data import EvalTransform, TrainTransform
from smmix_pl.reporting import comparison as compare
from smmix_pl.reporting.metric_names import metric_name
from smmix_pl.reporting.published import matching
from smmix_pl.runs.results import Curve, read_results

IMAGES = 64
"""Number of tested images, in batches of 32 and of 16."""
SMALL = {"patch_size": 8, "embed_dim": 64, "depth": 1, "num_heads": 4, "global_pool": "avg"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small model after a few epochs on the digits."""
    folder = tmp_path_factory.mktemp("results")
    plain = {"crop": "padded", "hflip": 0.0, "color_jitter": 0.0, "auto_augment": None}
    settings = {
        **{"image_size": 24, "cache": "device", "held_out": 0.1},
        "train_transform": TrainTransform(**plain),
        "eval_transform": EvalTransform(crop_ratio=1.0, interpolation="bilinear"),  # digits.yaml's
    }
    torch.manual_seed(0)
    module = SMMixModule(
        num_classes=10,
        image_size=(24, 24),
        batch_size=64,
        mixer=NoMix(),
        backbone="vit_tiny_patch16_224",
        backbone_args=SMALL,
        optim=OptimConfig(lr=1e-2, lr_batch=None, warmup_epochs=0),
    )
    trainer = quiet_trainer(max_epochs=6, limit_val_batches=0)
    trainer.fit(module, digits(batch_size=64, **settings))
    trainer.save_checkpoint(folder / "small.ckpt")
    # the same model tested from Python, by fewer evaluations
    own = [Calibration(10), Occlusion([0.3, 0.6], pattern="batch"), ResultsFile()]
    logger = CSVLogger(folder, name="python", version=0)
    tester = quiet_trainer(*own, logger=logger, limit_test_batches=4)
    tester.test(module, digits(batch_size=16, **settings), verbose=False)
    return folder / "small.ckpt"


@pytest.fixture(scope="module")
def tested(checkpoint):
    """`test` with the complete suite: its folder, and its result."""
    result = processes.run(
        *("test", "--config", "digits.yaml", "--name", "digits", "--config", "with/eval.yaml"),
        *("--ckpt_path", checkpoint, "--model.mixer=NoMix", "--verbose=false"),
        *(f"--model.backbone_args={SMALL}", "--data.image_size=24"),
        "--trainer.limit_test_batches=2",
        cwd=checkpoint.parent,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return checkpoint.parent / "runs/digits/version_0", result


def test_results_contain_every_metric_with_its_protocol(tested):
    folder, _ = tested
    results = read_results(folder)
    metrics = results["metrics"]
    expected = {"top1", "top5", "loss", "ece", "ece_10", "adaptive_ece_10", "classwise_ece_10"}
    expected |= {"mce", "nll", "brier", "ece_openmixup_10", "ece_scaled", "nll_scaled"}
    expected |= {"temperature", "corruption_mean", "ood_auroc", "ood_fpr95", "fgsm_8", "pgd_8"}
    expected |= {f"shuffle_{n}" for n in (2, 4, 8)} | {"corruption_jpeg_compression_5"}
    for kind in ("", "_shifted", "_salient", "_non_salient", "_batch"):
        expected |= {f"occlusion{kind}_{ratio}" for ratio in range(10, 91, 10)}
        expected |= {f"occlusion{kind}_auc_90"}
    assert expected <= metrics.keys()
    for name, found in metrics.items():
        highest = {"brier": 2, "temperature": 4}.get(name, 100 if "nll" in name else 1)
        highest = 100 if name == "loss" else 10 if name.startswith("conformal_size") else highest
        assert math.isfinite(found["value"]), name
        assert 0 <= found["value"] <= highest, name
        assert found["images"] == IMAGES, name
        assert found["protocol"], name
    assert metrics["top1"]["value"] > 0.3
    assert metrics["nll"]["value"] == pytest.approx(metrics["loss"]["value"], rel=1e-5)
    assert metrics["fgsm_8"]["value"] < metrics["fgsm_1"]["value"] <= metrics["top1"]["value"]
    assert metrics["pgd_8"]["value"] <= metrics["fgsm_8"]["value"] + 0.01
    assert metrics["occlusion_batch_50"]["protocol"]["pattern"] == "batch"
    assert metrics["pgd_8"]["protocol"]["seed"] == 0


def test_results_describe_the_run(tested, checkpoint):
    run = read_results(tested[0])["run"]
    assert (run["model"], run["mixer"], run["data"]) == ("vit_tiny_patch16_224", "NoMix", "Digits")
    assert run["image_size"] == [24, 24]
    assert Path(run["checkpoint"]) == checkpoint
    assert run["seed"] == 0
    assert re.fullmatch("[0-9a-f]{64}", run["config_sha256"])
    assert run["git_commit"] is None or re.fullmatch(r"[0-9a-f]{40}\+?", run["git_commit"])
    assert run["git_commit"] == results_file.git_commit()
    assert run["versions"]["torch"] == torch.__version__.split("+")[0] or torch.__version__
    assert {"smmix-pl", "lightning", "timm", "python"} <= run["versions"].keys()


def test_curves_and_bins_agree_with_the_metrics(tested):
    results = read_results(tested[0])
    metrics = {name: found["value"] for name, found in results["metrics"].items()}
    for name, curve in results["curves"].items():
        points = dict(zip(curve["x"], curve["y"], strict=True))
        if name != "risk":
            assert points[0] == pytest.approx(metrics["top1"], abs=1e-6), name
        for x in points.keys() - {0}:
            assert metrics[f"{name}_{x:g}"] == pytest.approx(points[x])
    for name, bins in results["reliability"].items():
        count, confidence, accuracy = (
            np.array(bins[key]) for key in ("total", "confidence", "accuracy")
        )
        assert count.sum() == IMAGES
        ece = (count * abs(accuracy - confidence)).sum() / IMAGES
        assert ece == pytest.approx(metrics[name.replace("reliability", "ece")])


def test_csv_is_the_same_table(tested):
    metrics = read_results(tested[0])["metrics"]
    with (tested[0] / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["metric"] for row in rows] == list(metrics)
    for row in rows:
        assert float(row["value"]) == metrics[row["metric"]]["value"]
        assert json.loads(row["protocol"]) == metrics[row["metric"]]["protocol"]


def test_every_figure_is_saved_as_png_and_svg(tested):
    folder = tested[0] / "pictures"
    names = {"reliability", "reliability_10", "reliability_scaled", "occlusion", "occlusion_batch"}
    names |= {"shuffle", "fgsm", "pgd", "corruptions", "outliers"}
    names |= {"confusion", "errors", "risk", "conformal"}
    for ending in ("png", "svg"):
        assert {path.name for path in folder.glob(f"*.{ending}")} == {
            f"test_{name}.{ending}" for name in names
        }
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            width, height = picture.size
            assert 640 <= width <= 1440, path.name  # legible in a W&B panel
            assert 480 <= height <= 1080, path.name
            assert len(set(picture.convert("L").getdata())) > 10, path.name
    assert all("<svg" in path.read_text() for path in folder.glob("*.svg"))


def test_the_printed_table_has_readable_names_and_file_paths(tested):
    printed = tested[1].stdout
    for text in ("top-1", "ECE (10 bins)", "FGSM 8/255", "AUROC", "results.json", "pictures"):
        assert text in printed
    assert "test/" not in printed


def test_results_from_python_have_a_hash_of_the_settings(checkpoint):
    results = read_results(checkpoint.parent / "python/version_0")
    assert re.fullmatch("[0-9a-f]{64}", results["run"]["config_sha256"])
    names = {"top1", "loss", "ece_10", "occlusion_batch_30", "occlusion_batch_auc_60"}
    assert names <= results["metrics"].keys()


def test_two_runs_are_compared_in_table_csv_and_figures(tested, checkpoint):
    """Both runs test one model: metrics are equal unless their protocols differ."""
    folder = checkpoint.parent
    result = processes.run(
        *("compare", "whole=runs/digits/version_0", "python/version_0"), cwd=folder
    )
    assert result.returncode == 0, result.stderr[-2000:]
    table = (folder / "comparison/table.md").read_text()
    assert table in result.stdout
    header, _, *lines = [line for line in table.splitlines() if line.startswith("|")]
    assert header == "|  | whole | python/version_0 |"
    [top1] = [line for line in lines if line.startswith("| top-1 |")]
    assert len(set(top1.split("|")[2:4])) == 1
    name = metric_name("occlusion_batch_30")
    assert f"{name}: not comparable" in table  # batches of 32 and of 16
    assert "top-1: not comparable" not in table
    assert "No published row" in table
    with (folder / "comparison/table.csv").open() as file:
        rows = {row["metric"]: row for row in csv.DictReader(file)}
    assert rows["pgd_8"]["python/version_0"] == ""
    assert float(rows["ece_10"]["whole"]) == pytest.approx(
        float(rows["ece_10"]["python/version_0"]), abs=1e-5
    )
    pictures = {path.name for path in (folder / "comparison").glob("*.*g")}
    assert pictures == {
        f"{name}.{ending}"
        for name in ("reliability_10", "occlusion_batch")
        for ending in ("png", "svg")
    }


def as_deit(source: Path, folder: Path, **protocol) -> Path:
    """Copy results under the name of a published model."""
    results = read_results(source)
    results["run"] |= {
        **{"model": "deit_small_patch16_224", "backbone_args": {"drop_path_rate": 0.1}},
        **{"data": "ImageNet", "image_size": [224, 224]},
    }
    for name, found in results["metrics"].items():
        if name.startswith("occlusion"):
            found["protocol"] |= {"patch_size": 16} | protocol
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_a_model_of_another_shape_does_not_match_a_published_one():
    run = {"model": "deit_small_patch16_224", "data": "ImageNet", "image_size": [224, 224]}
    assert matching(run | {"backbone_args": {"drop_path_rate": 0.1}})
    assert not matching(run | {"backbone_args": {"depth": 2}})


def compared(capsys, tmp_path, *runs):
    main(["compare", *map(str, runs), "--output", str(tmp_path / "out")])
    return capsys.readouterr().out, {path.name for path in (tmp_path / "out").iterdir()}


@pytest.mark.slow
def test_published_results_of_the_same_protocol_are_shown(tested, tmp_path, capsys):
    run = as_deit(tested[0], tmp_path / "deit")
    table, files = compared(capsys, tmp_path, run)
    assert "MergeMix, arXiv 2510.23479" in table
    [row] = [
        line
        for line in table.splitlines()
        if line.startswith(f"| {metric_name('occlusion_batch_50')} |")
    ]
    assert "72.92%" in row  # CutMix
    assert "70.25%" in row  # the reduced SMMix
    [row] = [line for line in table.splitlines() if line.startswith("| ECE as OpenMixup")]
    assert "4.19%" in row
    [row] = [line for line in table.splitlines() if line.startswith("| top-1 |")]
    assert "81.10%" in row
    assert "occlusion_batch.png" in files


@pytest.mark.slow
def test_published_occlusion_of_another_protocol_is_not_shown(tested, tmp_path, capsys):
    run = as_deit(tested[0], tmp_path / "deit", patch_size=32)
    table, _ = compared(capsys, tmp_path, run)
    [row] = [
        line
        for line in table.splitlines()
        if line.startswith(f"| {metric_name('occlusion_batch_50')} |")
    ]
    assert "72.92%" not in row
    assert "81.10%" in table  # plain top-1 is still compared


@pytest.mark.slow
def test_published_results_of_other_data_are_not_shown(tested, tmp_path, capsys):
    deit = as_deit(tested[0], tmp_path / "deit")
    table, _ = compared(capsys, tmp_path, deit, tested[0])
    assert "MergeMix" not in table
    assert "different data or image sizes" in table


@pytest.mark.slow
def test_the_path_of_a_run_may_contain_an_equals_sign(tested, tmp_path, capsys):
    shutil.copytree(tested[0], tmp_path / "lr=0.1")
    table, _ = compared(capsys, tmp_path, tmp_path / "lr=0.1", f"named={tested[0]}")
    assert "lr=0.1 | named |" in table


def repr_start(value):
    return repr(value)[:20]


@pytest.mark.parametrize(
    "content", [None, "{", "[1, 2]", '{"run": {}}', "\udcff", "[" * 100_000], ids=repr_start
)
def test_missing_or_invalid_results_give_a_one_line_error(content, tmp_path, capsys):
    if content is not None:
        data = content.encode("utf-8", "surrogateescape")
        (tmp_path / "results.json").write_bytes(data)
    with pytest.raises(SystemExit) as stopped:
        main(["compare", str(tmp_path), "--output", str(tmp_path / "out")])
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error:")
    assert "results.json" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_two_runs_of_one_name_are_rejected(tested):
    with pytest.raises(InputError, match=tested[0].name):
        compare.read_runs([str(tested[0]), str(tested[0])])


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0, 1)), min_size=2, max_size=12))
def test_area_agrees_with_scikit_learn(steps):
    x = np.cumsum([step for step, _ in steps]).tolist()
    y = [value for _, value in steps]
    assert Curve(x, y).area == pytest.approx(auc(x, y) / (x[-1] - x[0]))


def test_the_commit_is_that_of_this_package(tmp_path):
    """A package installed inside the checkout of another project has none."""
    copy = tmp_path / "venv" / "results_file.py"
    copy.parent.mkdir()
    shutil.copy(results_file.__file__, copy)
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "theirs"]):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *command], cwd=tmp_path, check=True)
    assert runpy.run_path(str(copy))["git_commit"]() is None


def test_readable_names():
    words = {
        "occlusion_non_salient_30": "top-1, 30% occlusion, non-salient",
        "occlusion_auc_75": "top-1, mean over 0 to 75% occlusion",
        "occlusion_batch_auc_90": "top-1, mean over 0 to 90% occlusion, same patches in a batch",
        "occlusion_12.5": "top-1, 12.5% occlusion",
        "corruption_jpeg_compression_5": "top-1, JPEG compression, severity 5",
        "ece_openmixup_10": "ECE as OpenMixup prints it (10 bins)",
        "fgsm_8": "top-1, FGSM 8/255",
    }
    assert {name: metric_name(name) for name in words} == words
