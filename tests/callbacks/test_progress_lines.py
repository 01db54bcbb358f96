"""Lines of progress in a log file."""

import re

from helpers.small_runs import digits, module, trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from smmix_pl import NoMix
from smmix_pl.callbacks import ProgressLines


def test_a_run_that_resumes_within_an_epoch_prints_its_lines(tmp_path, capsys):
    settings = {"limit_train_batches": 4, "limit_val_batches": 0, "max_epochs": 2}
    save = ModelCheckpoint(tmp_path, "stopped", every_n_train_steps=2, save_last=False)
    stopped = {"max_steps": 2, "callbacks": [save], "enable_checkpointing": True}
    trainer(tmp_path, **(settings | stopped)).fit(module(NoMix()), digits())
    capsys.readouterr()
    lines = {"callbacks": [ProgressLines()], "enable_progress_bar": True}
    again = trainer(tmp_path, **(settings | lines))
    again.fit(module(NoMix()), digits(), ckpt_path=tmp_path / "stopped.ckpt")
    assert again.global_step == 8
    printed = re.findall(r"^epoch (\d)/2: loss \d", capsys.readouterr().out, re.MULTILINE)
    assert printed == ["1", "2"]
