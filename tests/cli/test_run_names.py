"""Names and groups of W&B runs: they differ where the settings do, and seeds share a group."""

from pathlib import Path

import pytest
import yaml

from smmix_pl.cli.config_paths import default_configs, resolve_configs
from smmix_pl.cli.lightning_cli import SMMixCLI, cli_options
from smmix_pl.data import CUB, Folder
from smmix_pl.data.data_label import data_label
from smmix_pl.lightning_internals import wandb_init_args
from smmix_pl.runs.wandb_logger import WandbLogger

TINY = "--model.backbone_args={patch_size: 5, embed_dim: 24, depth: 1, num_heads: 2}"
ABLATIONS = [
    "--model.mixer.region_choice=random",
    "--model.losses.consistency=0.5",
    "--model.optim.betas=[0.9, 0.95]",
    "--model.backbone_args.depth=2",
    "--data.train_transform.hflip=0.5",
    "--trainer.max_epochs=5",
    "--trainer.callbacks+={class_path: EMA, init_args: {decay: 0.9}}",
]
SAME = ["--data.num_workers=1", "--data.root=elsewhere"]


@pytest.fixture
def named(tmp_path, monkeypatch):
    """A function that returns name and group of the W&B run of some options."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")

    def names(*options, config="digits.yaml"):
        words = resolve_configs(["--config", config, TINY, *options])
        defaults = {"default_config_files": default_configs()}
        cli = SMMixCLI(run=False, args=words, parser_kwargs=defaults, **cli_options())
        [logger] = [one for one in cli.trainer.loggers if isinstance(one, WandbLogger)]
        arguments = wandb_init_args(logger)
        Path("config.yaml").write_text(cli.parser.dump(cli.config, skip_none=False))
        return arguments["name"], arguments["group"]

    return names


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_runs_share_a_group_if_they_differ_in_their_seed_alone(named):
    name, group = named()
    for option in SAME:
        assert named(option) == (name, group), option
    other, same = named("--seed_everything=1")
    assert other != name
    assert same == group
    assert yaml.safe_load(Path("config.yaml").read_text())["seed_everything"] == 1
    assert named(config="config.yaml") == (other, group)
    groups = {option: named(option)[1] for option in ABLATIONS}
    assert len({group, *groups.values()}) == len(ABLATIONS) + 1
    assert max(map(len, groups.values())) <= 128  # what W&B accepts
    for option in ABLATIONS[:2]:
        assert option.removeprefix("--model.").removeprefix("mixer.") in groups[option]


@pytest.mark.parametrize(
    ("kind", "root", "label"),
    [(Folder, "photos/birds", "birds"), (CUB, "photos/birds", "CUB"), (Folder, "/", "Folder")],
)
def test_own_images_are_named_after_their_folder(kind, root, label):
    assert data_label(kind, root) == label
