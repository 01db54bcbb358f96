"""The program: help, recipes, and a short run of the digits recipe with everything it writes."""

import csv
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from helpers.programs import TINY_FLAGS, refusal, run_here
from helpers.sampling import every

import smmix_pl
from smmix_pl.cli.config_paths import configs_folder
from smmix_pl.cli.main import TOOLS, TRAINING, main
from smmix_pl.cli.option_names import OPTIONS
from smmix_pl.errors import InputError
from smmix_pl.reporting.metric_names import metric_spec
from smmix_pl.reporting.metric_specs import METRICS

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.name for path in configs_folder().glob("[!_]*.yaml"))
RUN = Path("runs/digits/vit_tiny_patch16_224-smmix/version_0")
SMALL = [
    "--model.backbone_args={patch_size: 5, embed_dim: 32, depth: 2, num_heads: 2}",
    *("--trainer.max_epochs=1", "--trainer.limit_train_batches=8"),
    *("--trainer.check_val_every_n_epoch=1", "--trainer.log_every_n_steps=1"),
]


@pytest.mark.parametrize(
    "words",
    [
        *(["--help"], ["--version"], ["fti"], ["compare", "--help"]),
        *(["fit", "--config=digitz"], ["fit", "--trianer.max_epochs=1"]),
    ],
    ids=" ".join,
)
def test_help_and_mistyped_commands_import_neither_torch_nor_lightning(words):
    code = """
import sys
from smmix_pl.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print("imported:", [name for name in ("torch", "lightning") if name in sys.modules])
"""
    result = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True
    )
    printed = result.stdout.splitlines()
    assert printed[-1] == "imported: []"
    near = {"fti": "fit", "--config=digitz": "digits.yaml", "--trianer.max_epochs=1": "trainer"}
    if words[-1] in near:
        assert result.returncode == 2
        assert result.stderr.startswith(f"error: {words[-1].split('.')[0]}:")
        assert near[words[-1]] in result.stderr
    else:
        assert result.returncode == 0, result.stderr
    if words == ["--help"]:
        for name in (*TRAINING, *TOOLS, *RECIPES):
            assert name in result.stdout
    if words == ["--version"]:
        assert smmix_pl.__version__ in printed[0]
    if words[-1] == "--help" and len(words) > 1:
        assert "usage: smmix compare" in result.stdout
        assert "--output" in result.stdout


@pytest.mark.parametrize("command", [*TRAINING, *TOOLS])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "usage:" in printed
    if command in TRAINING:
        assert set(re.findall(r"^  --(\w+)", printed, re.M)) <= {*OPTIONS}


def test_option_help_has_the_texts_of_the_docstrings(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    printed = capsys.readouterr().out
    for text in ("--model.backbone BACKBONE", "--model.optim.lr LR", "--name NAME"):
        assert text in printed


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """A folder with one short run of the digits recipe and an overlay, and what it printed."""
    folder = tmp_path_factory.mktemp("digits")
    words = ["fit", "--config", "digits.yaml", "--config", "with/ema.yaml", *SMALL]
    return folder, run_here(*words, cwd=folder)


def test_digits_recipe_ends_with_a_table_and_files(digits_run):
    folder, printed = digits_run
    for text in ("top-1", "top-5", "ECE", "occlusion", "metrics.csv", "best.ckpt"):
        assert text in printed
    run = folder / RUN
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert (run / "results.json").is_file()


def test_a_run_prints_a_header_a_line_per_epoch_and_one_table(digits_run):
    _, printed = digits_run
    lines = printed.splitlines()
    assert [line for line in lines if line.startswith("epoch 1/1: loss ")]
    for name, text in (("Model", "vit_tiny_patch16_224"), ("Precision", "32"), ("Run", str(RUN))):
        assert [line for line in lines if line.startswith(name) and text in line]
    assert sum(" top-1  " in line for line in lines) == 1
    assert max(map(len, lines[: lines.index("Test of vit_tiny_patch16_224")])) < 200


def test_a_test_writes_into_the_run_of_its_checkpoint(digits_run):
    folder, _ = digits_run
    before = logged_values(folder / RUN)
    config = (folder / RUN / "config.yaml").read_bytes()
    words = [
        "test",
        "--config",
        "digits.yaml",
        *SMALL[:1],
        "--ckpt_path",
        RUN / "checkpoints/best.ckpt",
    ]
    run_here(*words, "--data.batch_size=64", cwd=folder)
    assert [run.name for run in (folder / RUN).parent.iterdir()] == ["version_0"]
    after = logged_values(folder / RUN)
    assert after["train/loss"] == before["train/loss"]
    assert after["test/top1"] == 2 * before["test/top1"]
    assert (folder / RUN / "config.yaml").read_bytes() == config
    assert (folder / RUN / "test.yaml").is_file()


def logged_values(run: Path) -> dict[str, list[float]]:
    """Return everything that a run logged, by key."""
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    keys = rows[0].keys() - {"epoch", "step"}
    return {key: [float(row[key]) for row in rows if row[key]] for key in keys}


def assert_units(logged: dict[str, list[float]]) -> None:
    """Every key has a spec, and its values are possible in the unit of the spec."""
    for key, values in logged.items():
        spec = metric_spec(key)
        assert spec is not None, key
        assert key in spec.keys or "{" in spec.key, key
        assert min(values) >= 0, key
        if spec.unit == "fraction":
            assert max(values) <= 1 + 1e-6, key
        if spec.unit == "tokens":
            assert all(value == int(value) for value in values), key


def test_metrics_of_a_run_are_those_of_the_table(digits_run):
    folder, _ = digits_run
    logged = logged_values(folder / RUN)
    assert_units(logged)
    specs = [spec for spec in METRICS if not spec.source]
    expected = {key for spec in specs for key in spec.keys if "{" not in key}
    by_options = {"train/skipped_steps", "train/ema_decay"}
    by_options |= {"train/loss_distillation", "train/loss_uncertainty"}
    assert expected - logged.keys() <= by_options
    assert {metric_spec(key) for key in logged} >= {spec for spec in specs if "{" in spec.key}


@pytest.mark.slow
def test_metrics_of_the_evaluation_suite_are_those_of_the_table(digits_run):
    folder, _ = digits_run
    words = ["test", "--config", "digits.yaml", "--config", "with/eval.yaml", *SMALL[:1]]
    words += ["--trainer.limit_test_batches=1", "--data.batch_size=8", "--name=suite"]
    run_here(*words, "--ckpt_path", RUN / "checkpoints/best.ckpt", cwd=folder)
    run = folder / "runs/suite/version_0"
    logged = logged_values(run)
    assert_units(logged)
    results = json.loads((run / "results.json").read_text())["metrics"]
    assert logged.keys() - {f"test/{key}" for key in results} <= {"test/loss"}
    of_corrupted_sets = {"mCE", "AUPR", "error_{kind}"}
    with_other_bins = {"ece_scaled_{bins}"}
    expected = {spec.key for spec in METRICS if spec.source == "evaluation suite"}
    expected -= of_corrupted_sets | with_other_bins
    assert expected <= {metric_spec(key).key for key in logged}


def test_a_later_callback_replaces_an_earlier_one_of_its_class(digits_run):
    """The digits recipe and with/ema.yaml both name EMA; the defaults have best.ckpt as well."""
    folder, _ = digits_run
    config = yaml.safe_load((folder / RUN / "config.yaml").read_text())
    callbacks = [
        (callback["class_path"].rpartition(".")[2], callback.get("init_args") or {})
        for callback in config["trainer"]["callbacks"]
    ]
    names = Counter(name for name, _ in callbacks)
    assert names.pop("ModelCheckpoint") == 2
    assert set(names.values()) == {1}
    assert [args["decay"] for name, args in callbacks if name == "EMA"] == [0.99996]
    assert [args["every_n_epochs"] for name, args in callbacks if name == "MixedImages"] == [45]
    [best] = [args for _, args in callbacks if args.get("filename") == "best"]
    assert best["monitor"] == "val/loss"


def test_saved_config_repeats_the_run(digits_run):
    folder, _ = digits_run
    used = yaml.safe_load((folder / RUN / "config.yaml").read_text())
    assert used["trainer"]["max_epochs"] == 1
    assert used["data"]["class_path"].endswith("Digits")
    run_here("fit", "--config", RUN / "config.yaml", "--test_after_fit=false", cwd=folder)
    first, again = (
        torch.load(folder / RUN.with_name(name) / "checkpoints/last.ckpt", weights_only=True)
        for name in ("version_0", "version_1")
    )
    for name, weight in first["state_dict"].items():
        assert torch.equal(weight, again["state_dict"][name])


def test_checkpoint_holds_no_code(digits_run):
    folder, _ = digits_run
    checkpoint = torch.load(folder / RUN / "checkpoints/best.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["num_classes"] == 10


def test_predict_writes_a_csv(digits_run, imagenet_folder):
    folder, _ = digits_run
    words = ["predict", "--config", "digits.yaml", *SMALL[:1], "--name=predicted"]
    files = ["--data.predict_dir", imagenet_folder / "val"]
    run_here(*words, *files, "--ckpt_path", RUN / "checkpoints/best.ckpt", cwd=folder)
    with (folder / "runs/predicted/version_0/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    assert {Path(row["file"]).suffix for row in rows} == {".JPEG"}
    assert all(row["class"] in "0123456789" for row in rows)
    assert all(0.1 <= float(row["probability"]) <= 1 for row in rows)


def test_predictions_of_several_classes(digits_run, imagenet_folder):
    folder, _ = digits_run
    run_here(
        *("predict", "--config", "digits.yaml", *SMALL[:1], "--name=several"),
        *("--data.predict_dir", imagenet_folder / "val"),
        *("--ckpt_path", RUN / "checkpoints/best.ckpt"),
        "--trainer.callbacks+=smmix_pl.callbacks.PredictionsCSV",
        *("--trainer.callbacks.top_k=3", "--trainer.callbacks.all_probabilities=true"),
        cwd=folder,
    )
    with (folder / "runs/several/version_0/predictions.csv").open() as file:
        for row in csv.DictReader(file):
            by_class = {str(name): float(row[str(name)]) for name in range(10)}
            assert sum(by_class.values()) == pytest.approx(1, abs=1e-5)
            best = sorted(by_class, key=by_class.get, reverse=True)
            columns = ("class", "class_2", "class_3")
            assert [by_class[row[column]] for column in columns] == [
                by_class[name] for name in best[:3]
            ]
            assert float(row["probability_3"]) == by_class[best[2]]


@pytest.mark.slow
def test_imagenet_recipe_trains_on_class_folders(tmp_path, imagenet_folder):
    words = ["fit", "--config", "deit_t.yaml", *TINY_FLAGS, f"--data.root={imagenet_folder}"]
    words += [
        "--data.batch_size=4",
        "--trainer.max_epochs=1",
        "--trainer.enable_progress_bar=false",
    ]
    run_here(*words, cwd=tmp_path)
    [last] = tmp_path.glob("runs/imagenet/vit_tiny_*-smmix/version_0/checkpoints/last.ckpt")
    checkpoint = torch.load(last, weights_only=True)
    assert checkpoint["global_step"] == 4
    assert checkpoint["state_dict"]["backbone.model.head.weight"].shape[0] == 3
    [group, _] = checkpoint["optimizer_states"][0]["param_groups"]
    assert group["initial_lr"] == pytest.approx(5e-4 * 4 / 512)


def printed_config(words: list[str], capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        main([*words, "--print_config"])
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "recipe", every(2, ["digits", "cifar10_small", "deit_t", "cifar10_deit_t"])
)
def test_printed_config_of_a_recipe_is_complete(recipe, tmp_path, capsys):
    printed = printed_config(["fit", "--config", recipe], capsys)
    (tmp_path / "again.yaml").write_text(printed)
    assert printed_config(["fit", "--config", str(tmp_path / "again.yaml")], capsys) == printed


def test_debug_mode_raises_the_error(tmp_path, monkeypatch, capsys):
    words = ["fit", "--config", str(tmp_path / "gone.yaml")]
    assert "gone.yaml" in refusal(main, words, capsys)
    monkeypatch.setenv("SMMIX_DEBUG", "1")
    with pytest.raises(InputError, match=r"gone\.yaml"):
        main(words)


@pytest.mark.parametrize(
    "words", [["--model.optim.lr_batch=null"], ["--model.optim.lr_batch", "~"]]
)
def test_a_setting_of_a_group_may_be_null(words, tmp_path):
    """Also where the model is named by its class."""
    recipe = "downstream/segmentation_camvid.yaml"
    with pytest.raises(SystemExit) as stop:
        run_here("fit", "--config", recipe, *words, "--print_config", cwd=tmp_path)
    assert not stop.value.code
