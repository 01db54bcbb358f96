"""A small module on the digits, and a trainer that writes nothing."""

import torch

from helpers.digits import quiet_trainer
from smmix_pl import Digits, OptimConfig, SMMixModule
from smmix_pl.data import TrainTransform

TINY = {"patch_size": 4, "embed_dim": 48, "depth": 3, "num_heads": 3}
PLAIN = TrainTransform(crop="padded", hflip=0.0, color_jitter=0.0, auto_augment=None)


def digits(**arguments):
    settings = {"image_size": 16, "batch_size": 64, "num_workers": 0, "train_transform": PLAIN}
    return Digits(**(settings | arguments))


def module(mixer, **arguments):
    torch.manual_seed(0)
    settings = {
        "num_classes": 10,
        "image_size": (16, 16),
        "batch_size": 64,
        "backbone": "vit_tiny_patch16_224",
        "backbone_args": {"patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2},
        "optim": OptimConfig(lr=2e-3, lr_batch=None, warmup_epochs=1),
    }
    return SMMixModule(mixer=mixer, **(settings | arguments))


def trainer(tmp_path, **arguments):
    return quiet_trainer(**({"default_root_dir": tmp_path, "log_every_n_steps": 1} | arguments))
