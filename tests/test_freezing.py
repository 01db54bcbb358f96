"""Freezing, gradual unfreezing, and gradient checkpointing."""

import copy

import numpy as np
import pytest
import torch
from helpers.programs import refusal, run_here
from helpers.sampling import every
from helpers.small_recipe import FIT, write_recipe
from helpers.small_runs import digits, module, trainer
from lightning.pytorch import Callback, seed_everything

from smmix_pl import Backbone, CutMix, InputError, SMMix, SMMixLoss, TransMix, soft_labels
from smmix_pl.callbacks import GradualUnfreezing
from smmix_pl.cli.main import main
from smmix_pl.models.guide_config import GuideConfig

STEM = ("cls_token", "pos_embed", "patch_embed")


def changed(before, after):
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def is_below(name, block):
    """Return True for the stem and the blocks below one."""
    name = name.removeprefix("backbone.model.")
    return name.startswith(STEM) or any(name.startswith(f"blocks.{i}.") for i in range(block))


@pytest.mark.parametrize(
    ("frozen", "kept"),
    [
        (1, lambda name: is_below(name, 0)),
        (2, lambda name: is_below(name, 1)),
        (["token_head.bias", "*.cls_token"], lambda name: name.endswith(("d.bias", "cls_token"))),
    ],
)
def test_frozen_weights_do_not_change(frozen, kept, tmp_path):
    model = module(SMMix(), frozen=frozen)
    before = copy.deepcopy(model.state_dict())
    trainer(tmp_path, max_steps=3, limit_val_batches=0).fit(model, digits())
    weights = {name for name, _ in model.named_parameters()}
    head = {"backbone.model.head.bias"}  # ends like that of the token head
    expected = {name for name in weights if not kept(name)} | head
    assert changed(before, model.state_dict()) == expected


@pytest.mark.slow
def test_a_frozen_run_resumes_on_the_command_line(tmp_path):
    every = {"filename": "{epoch}", "save_top_k": -1, "monitor": "val/top1"}
    words = (
        *(*FIT, "--model.frozen=2", "--trainer.max_epochs=2", "--trainer.limit_train_batches=2"),
        *("--model.grad_checkpointing=true", "--trainer.callbacks+=GradualUnfreezing"),
        "--trainer.callbacks.epochs=0.5",
        f"--trainer.callbacks+={{class_path: ModelCheckpoint, init_args: {every}}}",
    )
    run_here(*words, cwd=write_recipe(tmp_path))
    [first] = tmp_path.rglob("epoch=0.ckpt")
    [last] = tmp_path.rglob("epoch=1.ckpt")
    run_here(*words, f"--ckpt_path={first}", cwd=write_recipe(tmp_path / "resumed"))
    [resumed] = (tmp_path / "resumed").rglob("epoch=1.ckpt")
    complete, resumed = (torch.load(path, weights_only=True) for path in (last, resumed))
    assert not changed(complete["state_dict"], resumed["state_dict"])
    begun = torch.load(first, weights_only=True)["state_dict"]
    assert changed(begun, complete["state_dict"])


class Weights(Callback):
    """Copies the weights after every epoch."""

    def __init__(self):
        self.seen = []

    def on_train_epoch_start(self, trainer, pl_module):
        self.seen.append(copy.deepcopy(pl_module.state_dict()))

    def on_train_end(self, trainer, pl_module):
        self.seen.append(copy.deepcopy(pl_module.state_dict()))


def test_layers_start_to_train_one_by_one(tmp_path):
    seed_everything(0)
    weights = Weights()
    model = module(SMMix())
    trainer(
        tmp_path,
        max_epochs=4,
        limit_train_batches=2,
        limit_val_batches=0,
        callbacks=[GradualUnfreezing(), weights],
    ).fit(model, digits())
    trained = [changed(*pair) for pair in zip(weights.seen, weights.seen[1:], strict=False)]
    heads = {name for name in trained[0] if "head" in name}
    assert trained[0] == heads
    assert trained[0] < trained[1] < trained[2] < trained[3]
    assert trained[3] == {name for name, _ in model.named_parameters()}
    assert all("blocks.1" in n or n.endswith(("m.weight", "m.bias")) for n in trained[1] - heads)
    assert not any(is_below(name, 0) for name in trained[2])


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_checkpointed_gradients_are_the_same(name):
    args = {
        "vit_tiny_patch16_224": {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
        "swin_tiny_patch4_window7_224": {"embed_dim": 12, "depths": (1, 1), "num_heads": (1, 2)},
    }[name]
    torch.manual_seed(0)
    plain = Backbone(name, 5, 32, model_args=args | {"drop_path_rate": 0.2}).train()
    saving = copy.deepcopy(plain)
    saving.checkpoint_gradients()
    images, labels = torch.randn(4, 3, 32, 32), soft_labels(torch.arange(4), 5)
    gradients = []
    for backbone in (plain, saving):
        mixed = SMMix(switch_prob=1)(images, labels, backbone, np.random.default_rng(0))
        torch.manual_seed(1)
        SMMixLoss(backbone)(mixed).backward()
        gradients.append([weight.grad for weight in backbone.parameters()])
    torch.testing.assert_close(*gradients)


def test_checkpointing_rejects_attention_of_the_training_pass():
    args = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    backbone = Backbone("vit_tiny_patch16_224", 5, 32, model_args=args, guide=GuideConfig("self"))
    backbone.checkpoint_gradients()
    labels = soft_labels(torch.arange(2), 5)
    mixed = TransMix(1)(torch.randn(2, 3, 32, 32), labels, backbone, np.random.default_rng(0))
    with pytest.raises(InputError, match=r"model\.grad_checkpointing=true"):
        SMMixLoss(backbone)(mixed)


@pytest.mark.parametrize(
    ("options", "named"),
    every(
        3,
        [
            (["--model.frozen=9"], "model.frozen=9"),
            (["--model.frozen=-1"], "model.frozen=-1"),
            (["--model.frozen=[model.block.*]"], "model.frozen=model.block.*"),
            (["--model.frozen=['*']"], "model.frozen="),
            (
                ["--trainer.callbacks+=GradualUnfreezing", "--trainer.callbacks.epochs=2"],
                "GradualUnfreezing.epochs=2",
            ),
            (
                ["--trainer.callbacks+=GradualUnfreezing", "--trainer.callbacks.epochs=0"],
                "GradualUnfreezing.epochs=0",
            ),
        ],
    ),
)
def test_invalid_options_are_named(options, named, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(write_recipe(tmp_path))
    assert named in refusal(main, [*FIT, *options], capsys)


def test_a_frozen_module_keeps_its_optimizer_small(tmp_path):
    model = module(CutMix(), frozen=2)
    run = trainer(tmp_path, max_steps=1, limit_val_batches=0)
    run.fit(model, digits())
    trained = {id(p) for group in run.optimizers[0].param_groups for p in group["params"]}
    assert trained == {id(p) for p in model.parameters() if p.requires_grad}
