"""The resolved config of a run, saved in its folder and handed to its loggers."""

from pathlib import Path
from typing import Any, cast

import yaml
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger

from smmix_pl.base_module import BaseModule
from smmix_pl.callbacks.output.figure_saver import run_folder
from smmix_pl.callbacks.output.results_file import description
from smmix_pl.cli.run_names import CHANGED_SETTINGS, changed_settings
from smmix_pl.runs.start_run import discard_run
from smmix_pl.runs.wandb_logger import WandbLogger


class SaveRunConfig(SaveConfigCallback):
    """Writes the config into the run folder and to the loggers that store configs.

    A test in the folder of a training run writes `test.yaml` beside the config of the training. A
    run that fails before its first batch leaves nothing behind.
    """

    started = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save the config if the run has loggers."""
        if trainer.loggers:
            folder = run_folder(trainer)
            if stage == "test" and folder is not None and (folder / "config.yaml").is_file():
                self.config_filename = "test.yaml"
            # without the checkpoint, so that the saved config starts a run of its own
            self.config = Namespace({**vars(self.config), "ckpt_path": None})
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Hand the config and a description of the run to the loggers."""
        config = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        folder = run_folder(trainer)
        saved = (folder or Path()) / self.config_filename
        described = {"run": description(trainer, cast(BaseModule, pl_module), saved)}
        for logger in trainer.loggers:
            if self.config_filename == "config.yaml" or not isinstance(logger, CSVLogger):
                logger.log_hyperparams(config | described)
            if isinstance(logger, WandbLogger) and folder is not None and stage == "fit":
                logger.keep_id(folder)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the settings that name the run, for a later test."""
        checkpoint[CHANGED_SETTINGS] = changed_settings(self.config)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what the run writes from now on."""
        self.started = True

    on_train_start = on_validation_start = on_sanity_check_start
    on_test_start = on_predict_start = on_sanity_check_start

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Remove the files of a run that has not started."""
        if not self.started and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            discard_run(trainer)
