"""The methods that benchmarks/evidence.py compares, as options of the real command line."""

from pathlib import Path

import pytest
import yaml
from helpers import processes

from smmix_pl.cli.main import main

ROOT = Path(__file__).parents[2]
CONTENT = yaml.safe_load((ROOT / "benchmarks/evidence_methods.yaml").read_text())
METHODS = CONTENT["methods"] | CONTENT["experiments"]


@pytest.mark.parametrize("method", METHODS)
def test_options_of_a_method_are_valid(method, capsys):
    words = [f"--{option}={value}" for option, value in METHODS[method].items()]
    with pytest.raises(SystemExit) as status:
        main(["fit", "--config", "digits.yaml", *words, "--print_config"])
    assert status.value.code in (0, None)
    assert "class_path: smmix_pl." in capsys.readouterr().out


@pytest.mark.slow
def test_evidence_trains_and_tabulates(tmp_path):
    """One epoch of two steps, with one seed, and a second call that only reads the results."""
    flags = (
        "--trainer.max_epochs=1 --trainer.limit_train_batches=2 --trainer.log_every_n_steps=1 "
        "--trainer.check_val_every_n_epoch=1"
    )
    command = [
        *(ROOT / "benchmarks/evidence.py", "digits", "--seeds", "0"),
        *("--methods", "none", "--flags", flags),
    ]
    for _ in range(2):
        result = processes.run(*command, cwd=tmp_path)
        assert result.returncode == 0, result.stderr[-2000:]
    cells = [cell.strip() for cell in result.stdout.splitlines()[-1].strip("|").split("|")]
    assert cells[0] == "none"
    assert 0 <= float(cells[1]) <= 100
    assert "done" not in result.stderr  # nothing was trained
    assert (tmp_path / "runs/evidence/evidence_digits.png").is_file()
