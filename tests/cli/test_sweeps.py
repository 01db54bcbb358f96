"""The shipped W&B sweeps: their commands, as W&B's agent expands them, run and resume."""

from itertools import product

import pytest
import yaml
from helpers.programs import run_here

from smmix_pl.cli.config_paths import configs_folder
from smmix_pl.reporting.metric_names import metric_spec

SWEEPS = sorted((configs_folder() / "sweeps").glob("*.yaml"))


def expanded(sweep, values):
    """Return the command of a run as the agent starts it, without the program."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    macros = create_sweep_command_args({"args": {key: {"value": values[key]} for key in values}})
    words = []
    for word in create_sweep_command(list(sweep["command"])):
        words += macros[word[2:-1]] if word.startswith("${") else [word]
    assert words.pop(0) == sweep["program"] == "smmix"
    return words


def extremes(parameters):
    """Yield combinations of the parameters' values, with both ends of each interval."""
    choices = [one.get("values") or [one["min"], one["max"]] for one in parameters.values()]
    for values in product(*(choice[:: max(1, len(choice) - 1)] for choice in choices)):
        yield dict(zip(parameters, values, strict=True))


@pytest.mark.parametrize("file", SWEEPS, ids=lambda path: path.stem)
def test_the_parser_accepts_what_a_sweep_runs(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    sweep = yaml.safe_load(file.read_text())
    assert sweep["method"] in ("grid", "random", "bayes")
    assert metric_spec(sweep["metric"]["name"]) is not None
    first, *_, last = extremes(sweep["parameters"])
    for values in (first, last):
        with pytest.raises(SystemExit) as stop:
            run_here(*expanded(sweep, values), "--print_config", cwd=tmp_path)
        assert not stop.value.code


@pytest.mark.slow
def test_a_run_of_a_sweep_has_a_folder_and_resumes_in_it(tmp_path, monkeypatch):
    sweep = yaml.safe_load(SWEEPS[0].read_text())
    values = next(extremes(sweep["parameters"])) | {"trainer.limit_train_batches": 2}
    small = ["--model.backbone_args={patch_size: 5, embed_dim: 32, depth: 2, num_heads: 2}"]
    small += ["--test_after_fit=false", "--trainer.check_val_every_n_epoch=1"]
    for run, epochs in (("first", 1), ("second", 1), ("first", 2)):
        monkeypatch.setenv("WANDB_RUN_ID", run)
        words = expanded(sweep, values | {"trainer.max_epochs": epochs})
        run_here(*words, *small, cwd=tmp_path)
    runs = {path.parent.name: path for path in tmp_path.glob("runs/sweep/*/version_*")}
    assert runs.keys() == {"first", "second"}
    for run, epochs in (("first", 2), ("second", 1)):
        rows = (runs[run] / "metrics.csv").read_text().splitlines()
        epoch = rows[0].split(",").index("epoch")
        assert {row.split(",")[epoch] for row in rows[1:]} == {str(n) for n in range(epochs)}
