"""Every overlay in configs/data, through the real command line."""

import pytest
import yaml
from helpers import data_trees
from helpers.sampling import every

from smmix_pl.cli.config_paths import configs_folder
from smmix_pl.cli.main import main

OVERLAYS = sorted((configs_folder() / "data").glob("*.yaml"))
SETS = {
    *("imagenet", "cifar10", "cifar100", "cifar100_224", "cub", "cars", "aircraft", "flowers"),
    *(
        "pets",
        "imagenette",
        "inat2018",
        "inat2019",
        "tiny_imagenet",
        "folder",
        "table",
        "imagenet_a",
        "imagenet_r",
    ),
    *("imagenet_v2", "imagenet_sketch", "imagenet_o", "imagenet_real", "imagenet_c"),
    *("cifar10_c", "cifar100_c"),
}


def config_of(capsys, *words):
    """Return the resolved config of a command line."""
    with pytest.raises(SystemExit) as status:
        main([*words, "--print_config"])
    assert status.value.code in (0, None)
    return yaml.safe_load(capsys.readouterr().out)


def test_every_set_has_an_overlay():
    assert {path.stem for path in OVERLAYS} >= SETS


@pytest.mark.parametrize("stem", every(9, (path.stem for path in OVERLAYS)))
def test_an_overlay_determines_all_of_its_settings(stem, capsys):
    """Over two recipes that differ in every transform, it gives the same data."""
    name = f"data/{stem}.yaml"
    own = yaml.safe_load((configs_folder() / name).read_text())
    found = [
        config_of(capsys, "test", "--config", recipe, "--config", name)["data"]
        for recipe in ("deit_t.yaml", "digits.yaml")
    ]
    assert found[0]["class_path"] == found[1]["class_path"] == own["data"]["class_path"]
    if own["data"]["class_path"].rsplit(".", 1)[1].startswith(("ImageNetA", "ImageNetR")):
        return  # they keep the transforms of the recipe
    for key, value in own["data"].get("init_args", {}).items():
        for one in found:
            if not isinstance(value, dict):
                assert one["init_args"][key] == value
            elif "crop" in value:  # overlays of training sets set all of the augmentation
                assert one["init_args"][key] == found[0]["init_args"][key]


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_an_overlay_has_a_header(overlay):
    header = [line for line in overlay.read_text().splitlines() if line.startswith("#")]
    assert any("--data.root DIR" in line for line in header)
    assert any("data.root holds" in line for line in header)
    assert f"--config data/{overlay.name}" in overlay.read_text()
    config = yaml.safe_load(overlay.read_text())
    assert set(config) <= {"data", "trainer"}
    assert set(config.get("trainer", {})) <= {"callbacks+"}


def test_a_run_on_an_overlay(tmp_path, monkeypatch):
    monkeypatch.chdir(data_trees.cub(tmp_path))
    words = """fit --config digits.yaml --config data/cub.yaml --data.root . --data.held_out 0
    --data.image_size 24 --data.batch_size 3 --data.num_workers 0 --trainer.max_epochs 1
    --trainer.check_val_every_n_epoch 1 --trainer.logger false --test_after_fit false"""
    main([*words.split(), "--trainer.callbacks=[]"])
