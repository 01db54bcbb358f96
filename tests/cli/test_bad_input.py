"""Named kinds of bad input: each ends in one clear sentence and a status, never in a number."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from helpers.image_folders import write_image_folder
from PIL import Image

from smmix_pl.cli import check_data as check
from smmix_pl.cli import main as cli
from smmix_pl.data.io import shard_writer as shards
from smmix_pl.reporting import comparison as compare
from smmix_pl.runs import export_weights as export

MAIN = {
    "lightning": cli.main,
    "smmix_pl.reporting.comparison": compare.main,
    "smmix_pl.runs.export_weights": export.main,
    "smmix_pl.cli.check_data": check.main,
    "smmix_pl.data.io.shard_writer": shards.main,
}
TINY = (
    "--model.backbone=vit_tiny_patch16_224 "
    "--model.backbone_args='{patch_size: 4, embed_dim: 24, depth: 2, num_heads: 2}' "
    "--trainer.accelerator=cpu --trainer.max_epochs=1 --trainer.limit_train_batches=2 "
    "--trainer.limit_val_batches=1 --trainer.enable_progress_bar=false "
    "--trainer.enable_model_summary=false --trainer.logger=false "
    "--data.image_size=16 --data.num_workers=0 "
)
WORDS = {
    "DIGITS": f"--data=smmix_pl.Digits {TINY} --data.batch_size=8 ",
    "FOLDER": f"--data=smmix_pl.data.Folder {TINY} --data.batch_size=4 --data.root=images ",
    "SET": "--data=smmix_pl.data.Folder --data.root=images",
}
IMAGE = "images/train/ant/0.JPEG"


class Case(NamedTuple):
    """One kind of bad input.

    Attributes:
        command: What is typed; the names in ``WORDS`` stand for a tiny model and its data.
        told: What the sentence has to contain: the value or the file, and words of the mend.
        damage: What is done to the folder of good files before.
    """

    command: str
    told: tuple[str, ...]
    damage: Callable[[Path], object] = lambda folder: None


def fit(words, *told):
    return Case(f"fit DIGITS {words}", told)


def write(name, content):
    def damage(folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return damage


def cut(name):
    def damage(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return damage


def turn_bits(name):
    """Some bits in the middle, which is a weight's."""

    def damage(folder):
        content = bytearray((folder / name).read_bytes())
        with zipfile.ZipFile(folder / name) as members:
            largest = max(members.infolist(), key=lambda member: member.file_size)
        start = largest.header_offset + 200 + largest.file_size // 2
        content[start : start + 8] = bytes(255 - byte for byte in content[start : start + 8])
        (folder / name).write_bytes(content)

    return damage


def remove(name):
    return lambda folder: shutil.rmtree(folder / name)


def in_place(name, make):
    """Something else where an image was."""

    def damage(folder):
        (folder / name).unlink()
        make(folder / name)

    return damage


def add_class(*parts):
    return lambda folder: [(folder / "images" / part / "dog").mkdir() for part in parts]


def config(content):
    return write("mine.yaml", content)


def checkpoint(change):
    """The checkpoint after a change of what it holds; null stands for a change in place."""

    def damage(folder):
        content = torch.load(folder / "good.ckpt", weights_only=True)
        changed = change(content)
        torch.save(content if changed is None else changed, folder / "good.ckpt")

    return damage


def weights(change):
    """The checkpoint with each weight changed, and left out where the change is null."""

    def change_all(content):
        pairs = ((name, change(name, value)) for name, value in content["state_dict"].items())
        content["state_dict"] = {name: value for name, value in pairs if value is not None}

    return checkpoint(change_all)


def results(**changes):
    run = {"model": "vit", "mixer": "SMMix", "data": "Digits", "image_size": [16, 16]}
    top1 = {"value": 0.5, "images": 10, "protocol": {}}
    good = {
        "run": run | {"seed": 0, "git_commit": None},
        "metrics": {"top1": top1},
        "curves": {},
        "reliability": {},
    }
    return write("results.json", json.dumps(good | changes))


VALIDATE = "validate DIGITS --ckpt_path=good.ckpt"
RESUME = "fit DIGITS --trainer.max_epochs=2 --ckpt_path=good.ckpt"
INIT = "fit DIGITS --model.init_from=good.ckpt"
EXPORT = "smmix_pl.runs.export_weights good.ckpt"
COMPARE = "smmix_pl.reporting.comparison results.json"

LINE = {
    "weights that timm does not have": fit(
        "--model.backbone=pvt_tiny --model.backbone_args=null --model.pretrained=true "
        "--data.image_size=32",
        "cannot make pvt_tiny",
        "leave out model.pretrained",
    ),
    "tag that timm does not have": fit(
        "--model.backbone=vit_tiny_patch16_224.foo", "vit_tiny_patch16_224.foo", "Invalid"
    ),
    "drop path above 1": fit(
        "--model.backbone_args.drop_path_rate=2", "drop_path_rate is 2", "[0, 1]"
    ),
    "model without logits": fit("--model.backbone_args.global_pool=''", "global_pool is empty"),
    "betas of an optimizer without": fit(
        "--model.optim.name=lion --model.optim.eps=0.1", "optim.eps", "take them out for lion"
    ),
    "misspelled setting of a setting": fit("--model.optim.lrr=1", "did you mean", "lr"),
    "misspelled mixer": fit("--model.mixer=Cutmix", "did you mean CutMix"),
    "misspelled data set": Case("fit --data=ImageNett", ("did you mean ImageNet",)),
    "checkpoints that all are damaged": Case(
        "fit DIGITS --trainer.logger=CSVLogger --trainer.logger.save_dir=. --trainer.logger.name=r "
        "--ckpt_path=last",
        ("last.ckpt among them", "begin anew"),
        write("r/version_0/checkpoints/last.ckpt", "torn"),
    ),
    "checkpoint with a turned bit": Case(
        VALIDATE, ("good.ckpt", "checksum", "get it anew"), turn_bits("good.ckpt")
    ),
    "another optimizer than was trained with": Case(
        f"{RESUME} --model.optim.name=sgd", ("another one than SGD", "--model.init_from")
    ),
    "step of PGD that is none": fit(
        "--trainer.callbacks+=PGD --trainer.callbacks.step=.nan", "nan"
    ),
    "validation after 0 batches": fit("--trainer.val_check_interval=0", "val_check_interval is 0"),
    "negative clipping": fit("--trainer.gradient_clip_val=-1", "gradient_clip_val is -1"),
    "no batches to test": Case(
        "test DIGITS --trainer.limit_test_batches=0", ("is 0", "needs batches")
    ),
    "search for a batch size": fit(
        "--trainer.callbacks+=BatchSizeFinder", "BatchSizeFinder", "take"
    ),
    "empty checkpoint name": Case("fit DIGITS --ckpt_path=", ("--ckpt_path is empty",)),
    "empty name of weights": fit("--model.init_from=", "no file"),
    "image of one row": Case(
        "fit FOLDER",
        (IMAGE, "30000 x 1", "mend"),
        in_place(IMAGE, lambda file: Image.new("RGB", (30000, 1)).save(file, "JPEG")),
    ),
    "pipe for an image": Case(
        "fit FOLDER", (IMAGE, "no plain file"), in_place(IMAGE, lambda file: os.mkfifo(file))
    ),
    "no subcommand": Case("", ("subcommand", "fit,validate,test,predict")),
    "unknown subcommand": Case("fti", ("'fti'", "'fit'")),
    "no data": Case("fit", ("required", "data")),
    "setting of no data set": Case("fit --data.root=images", ("no data set", "--config")),
    "option without a value": Case("fit --config", ("--config", "expected one argument")),
    "misspelled flag": fit("--model.lable_smoothing=0.1", "lable", "did you mean model.label_"),
    "misspelled flag of the data": fit("--data.bach_size=2", "bach_size", "batch_size"),
    "misspelled flag of the mixer": fit("--model.mixer.swich_prob=1", "swich", "switch_prob"),
    "value that the data sets": fit("--model.num_classes=5", "model.num_classes", "data."),
    "unknown config": Case("fit --config deit_x.yaml", ("deit_x.yaml", "did you mean")),
    "folder for a config": Case("fit --config images", ("images", "no config")),
    "config that is no YAML": Case(
        "fit DIGITS --config mine.yaml",
        ("mine.yaml", "YAML", "line 2"),
        config("a: [1\nb: {"),
    ),
    "config of bytes": Case(
        "fit DIGITS --config mine.yaml", ("mine.yaml", "not a YAML"), config(bytes(range(256)))
    ),
    "config that is a list": Case(
        "fit DIGITS --config mine.yaml", ("mine.yaml", "sections"), config("- a\n- b\n")
    ),
    "config that is a word": Case(
        "fit DIGITS --config mine.yaml", ("mine.yaml", "sections"), config("hello\n")
    ),
    "config that says a thing twice": Case(
        "fit DIGITS --config mine.yaml",
        ("mine.yaml", "'label_smoothing' twice", "line 3"),
        config("model:\n  label_smoothing: 0.1\n  label_smoothing: 0.2\n"),
    ),
    "misspelled section in a config": Case(
        "fit DIGITS --config mine.yaml",
        ("modle", "did you mean model"),
        config("modle: {label_smoothing: 0.1}\n"),
    ),
    "misspelled key in a config": Case(
        "fit DIGITS --config mine.yaml",
        ("bakcbone", "did you mean model.backbone"),
        config("model: {bakcbone: deit}\n"),
    ),
    "wrong type in a config": Case(
        "fit DIGITS --config mine.yaml",
        ("trainer.max_epochs", "int or null", "many"),
        config("trainer: {max_epochs: many}\n"),
    ),
    "config that sets what the data sets": Case(
        "fit DIGITS --config mine.yaml",
        ("mine.yaml", "model.image_size", "take it out"),
        config("model: {image_size: [8, 8]}\n"),
    ),
}
TYPES = {
    "word for a count": fit("--data.batch_size=many", "batch_size", "int", "many"),
    "fraction for a count": fit("--data.batch_size=2.5", "batch_size", "int", "2.5"),
    "null for a count": fit("--data.batch_size=null", "data.batch_size is None", "at least 1"),
    "word for a number": fit("--model.optim.lr=fast", "optim.lr", "float", "fast"),
    "word for a switch": fit("--model.pretrained=maybe", "model.pretrained", "bool", "maybe"),
    "three sides of an image": fit("--data.image_size=[8,8,8]", "image_size", "2 elements"),
    "two channels": fit("--data.mean=[0.5,0.5]", "mean", "3 elements", "[0.5, 0.5]"),
    "number for a table": fit("--model.backbone_args=7", "model.backbone_args", "dict", "7"),
    "unknown choice": fit("--model.attention=classs", "attention", "'tokens', 'class'", "classs"),
    "unknown data set": fit("--data=smmix_pl.Digts", "smmix_pl.Digts"),
    "unknown mixer": fit("--model.mixer=CutMux", "model.mixer", "CutMux"),
    "data set for a mixer": fit("--model.mixer=smmix_pl.Digits", "smmix_pl.Digits", "Mixer"),
    "code for a mixer": fit("--model.mixer=os.system", "os.system", "SMMIX_PACKAGES"),
    "unknown callback": fit("--trainer.callbacks+=Nothing", "trainer.callbacks", "Nothing"),
    "unknown optimizer": fit("--model.optim.name=adamm", "optim.name is 'adamm'", "adam"),
    "unknown model": fit("--model.backbone=deit_tinny", "'deit_tinny'", "deit_tiny_patch16_224"),
    "unknown policy": fit("--data.train_transform.auto_augment=strong", "'strong'", "rand-m9"),
    "unknown kernel": fit("--data.eval_transform.interpolation=cubic", "'cubic'", "bicubic"),
    "unknown kernel in training": fit(
        "--data.train_transform.interpolation=cubic", "train_transform", "'cubic'", "bicubic"
    ),
}
RANGES = {
    "no images in a batch": fit("--data.batch_size=0", "data.batch_size is 0", "at least 1"),
    "batch of more than there is": fit("--data.batch_size=9999", "9999", "lower data.batch_size"),
    "loaders below 0": fit("--data.num_workers=-1", "data.num_workers is -1", "[0, 512]"),
    "no pixels": fit("--data.image_size=0", "data.image_size is 0", "at least 1"),
    "patches that do not fit": fit("--data.image_size=18", "18 x 18", "nearest", "16 x 16"),
    "one token": fit("--data.image_size=4", "1 x 1", "larger images"),
    "no learning rate": fit("--model.optim.lr=0", "learning rate is 0", "above 0"),
    "NaN for a learning rate": fit("--model.optim.lr=.nan", "learning rate is nan", "above 0"),
    "infinite learning rate": fit("--model.optim.lr=.inf", "learning rate is inf", "above 0"),
    "huge learning rate": fit("--model.optim.lr=1e300", "learning rate is 1e+300", "optim.lr"),
    "negative decay": fit("--model.optim.weight_decay=-1", "weight_decay is -1", "at least 0"),
    "NaN for a decay": fit("--model.optim.weight_decay=.nan", "weight_decay is nan", "finite"),
    "beta above 1": fit("--model.optim.betas=[1.5,0.9]", "optim.betas[0] is 1.5", "[0, 1)"),
    "negative epsilon": fit("--model.optim.eps=-1", "optim.eps is -1", "at least 0"),
    "endless warm-up": fit("--model.optim.warmup_epochs=.inf", "warmup_epochs is inf", "finite"),
    "negative warm-up rate": fit("--model.optim.warmup_lr=-1", "warmup_lr is -1", "[0, 1000000"),
    "negative last rate": fit("--model.optim.min_lr=-1", "optim.min_lr is -1", "[0, 1000000"),
    "all smoothed": fit("--model.label_smoothing=1", "label_smoothing is 1.0", "[0, 1)"),
    "negative weight of a loss": fit("--model.fine_grained_weight=-1", "is -1", "at least 0"),
    "negative soft start": fit("--model.soft_start_epochs=-1", "is -1", "at least 0"),
    "NaN for a weight of a loss": fit("--model.consistency_weight=.nan", "is nan", "finite"),
    "all held out": fit("--data.held_out=1", "data.held_out is 1.0", "[0, 1)"),
    "repeated for ever": fit("--data.repeats=1000000000000", "data.repeats is", "[1, 1000]"),
    "nothing to train on": fit("--data.train_fraction=0", "data.train_fraction is 0.0", "(0, 1]"),
    "more shots than images": fit("--data.shots=9999", "data.shots is 9999", "lower data.shots"),
    "deviation of 0": fit("--data.std=[0,1,1]", "data.std is 0", "[1e-06, ", "[0, 1]"),
    "NaN for a mean": fit("--data.mean=[.nan,0,0]", "data.mean", "nan"),
    "scale the wrong way round": fit(
        "--data.train_transform.scale=[1,0.5]", "train_transform.scale is [1", "min <= max <= 1"
    ),
    "negative aspect": fit("--data.train_transform.ratio=[-1,1]", "ratio is [-1", "0 < min"),
    "probability of 2": fit("--data.train_transform.hflip=2", "hflip is 2", "[0, 1]"),
    "crop of nothing": fit("--data.eval_transform.crop_ratio=0", "crop_ratio is 0", "[0.05, 1]"),
    "SMMix too often": fit("--model.mixer.switch_prob=2", "switch_prob is 2", "[0, 1]"),
    "NaN for alpha": fit("--model.mixer.mixup_alpha=.nan", "alpha is nan", "above 0"),
    "region larger than the image": fit("--model.mixer.max_side_ratio=1.5", "1.5", "max < 1"),
    "grid of one cell": fit("--model.mixer=GridMix --model.mixer.grid=1", "grid is 1", "[2, 1024]"),
    "negative grid": fit("--model.mixer=AttentiveCutMix --model.mixer.grid=-9", "-9", "7 x 7"),
    "no heads": fit("--model.backbone_args.num_heads=0", "num_heads", "0"),
    "heads that do not divide": fit("--model.backbone_args.num_heads=5", "'num_heads': 5", "divis"),
    "negative guide": fit("--model.guide_size=-16", "guide_size is -16", "pixels"),
    "seed below 0": fit("--seed_everything=-1", "seed_everything is -1", "4294967295]"),
    "no gradient to accumulate": fit(
        "--trainer.accumulate_grad_batches=0", "accumulate_grad_batches is 0", "at least 1"
    ),
    "never validated": fit("--trainer.check_val_every_n_epoch=0", "every_n_epoch is 0", "least 1"),
    "no batches": fit("--trainer.limit_train_batches=0", "limit_train_batches is 0", "batches to"),
    "no device": fit("--trainer.devices=0", "devices='0'", "not a valid"),
    "no bins": fit(
        "--trainer.callbacks+=Calibration --trainer.callbacks.n_bins=0",
        "Calibration.n_bins=0",
        "15 is",
    ),
    "occlusion of twice the image": fit(
        "--trainer.callbacks+=Occlusion --trainer.callbacks.ratios=[2]",
        "Occlusion.ratios=2.0",
        "[0.001, 1]",
    ),
    "average of nothing": fit(
        "--trainer.callbacks+=EMA --trainer.callbacks.decay=1.5", "decay is 1.5", "in [0, 1]"
    ),
    "pictures of nothing": fit(
        "--trainer.callbacks+=MixedImages --trainer.callbacks.examples=0",
        "examples is 0",
        "at least 1",
    ),
    "no errors to keep": fit(
        "--trainer.callbacks+=ConfidentErrors --trainer.callbacks.count=0",
        "ConfidentErrors.count=0",
        "at least 1",
    ),
}
CONTRADICTIONS = {
    "two sources of weights": fit(
        "--model.pretrained=true --model.init_from=good.ckpt", "good.ckpt", "give one of them"
    ),
    "guide without the logits that are read": fit(
        "--model.guide_block=1", "model.guide_block=1", "consistency to false"
    ),
    "model without attention": fit(
        "--model.backbone=resnet18 --model.backbone_args={}", "ResNet has no attention", "choose"
    ),
    "schedule without an end": fit("--trainer.max_epochs=-1", "needs an end", "trainer.max_epochs"),
    "metric that is not logged": fit(
        "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor=val/acc",
        "`val/acc`",
        "val/loss",
    ),
    "accelerator that is not there": fit("--trainer.accelerator=abacus", "abacus", "cuda"),
    "classes of another count": fit(
        "--model.backbone_args.num_classes=3", "num_classes", "comes from the data"
    ),
    "best checkpoint of nothing": fit("--ckpt_path=best", "best", "--ckpt_path"),
    "last of no run": fit("--ckpt_path=last", "--ckpt_path last", "CSVLogger"),
    "validate the last": Case(
        "validate DIGITS --ckpt_path=last", ("--ckpt_path last", "validate takes a file")
    ),
}
CHECKPOINTS = {
    "missing checkpoint": Case(
        "validate DIGITS --ckpt_path=gone.ckpt", ("gone.ckpt", ".ckpt file")
    ),
    "folder for a checkpoint": Case("validate DIGITS --ckpt_path=images", ("images", ".ckpt file")),
    "empty checkpoint": Case(VALIDATE, ("good.ckpt", "get it anew"), write("good.ckpt", "")),
    "truncated checkpoint": Case(VALIDATE, ("good.ckpt", "truncated"), cut("good.ckpt")),
    "web page for a checkpoint": Case(
        VALIDATE, ("good.ckpt", "another format"), write("good.ckpt", "<html>404</html>")
    ),
    "weights alone for a checkpoint": Case(
        VALIDATE, ("good.ckpt", "--model.init_from"), checkpoint(lambda old: old["state_dict"])
    ),
    "checkpoint of a deeper model": Case(
        f"{VALIDATE} --model.backbone_args.depth=3", ("another model", "use the config")
    ),
    "checkpoint of another class count": Case(
        "validate FOLDER --ckpt_path=good.ckpt", ("2 classes", "head.weight", "use the config")
    ),
    "missing weight": Case(
        VALIDATE,
        ("1 of 34", "patch_embed.proj.bias", "use the config"),
        weights(lambda name, old: None if name.endswith("patch_embed.proj.bias") else old),
    ),
    "extra weight": Case(
        VALIDATE,
        ("extra among them", "use the config"),
        checkpoint(lambda old: old["state_dict"].update(extra=torch.zeros(1))),
    ),
    "weights of integers": Case(
        VALIDATE, ("34 of 34", "shape or type"), weights(lambda _, old: old.int())
    ),
    "complex weights": Case(
        VALIDATE, ("good.ckpt", "torch.complex64"), weights(lambda _, old: old.cfloat())
    ),
    "weights of NaN": Case(
        VALIDATE, ("good.ckpt", "NaN", "older one"), weights(lambda _, old: old * torch.nan)
    ),
    "weights that are lists": Case(
        VALIDATE, ("good.ckpt", "list", "get it anew"), weights(lambda _, old: old.tolist())
    ),
    "going on without the optimizer": Case(
        RESUME,
        ("optimizer_states is missing", "--model.init_from"),
        checkpoint(lambda old: old.pop("optimizer_states") and None),
    ),
    "going on without progress": Case(
        RESUME,
        ("loops is missing", "--model.init_from"),
        checkpoint(lambda old: old.pop("loops") and None),
    ),
    "going on at a word": Case(
        RESUME,
        ("global_step is missing or damaged", "--model.init_from"),
        checkpoint(lambda old: old.update(global_step="many")),
    ),
    "going on with another optimizer": Case(
        f"{RESUME} --model.optim.weight_decay=0", ("optimizer is another one", "--model.init_from")
    ),
    "missing weights to start from": fit("--model.init_from=gone.pth", "gone.pth", ".safetensors"),
    "broken safetensors to start from": Case(
        "fit DIGITS --model.init_from=w.safetensors",
        ("w.safetensors", "get it anew"),
        write("w.safetensors", "<html>"),
    ),
    "start from another model": Case(
        f"{INIT} --model.backbone_args.depth=9", ("good.ckpt", "30 of 114", "set model.backbone")
    ),
    "start from integers": Case(
        INIT, ("good.ckpt", "torch.int32", "set model.backbone"), weights(lambda _, old: old.int())
    ),
    "start from NaN": Case(
        INIT, ("good.ckpt", "NaN", "older one"), weights(lambda _, old: old * torch.nan)
    ),
    "start from nothing": Case(
        INIT, ("good.ckpt", "no weights"), checkpoint(lambda old: old.update(state_dict={}))
    ),
}
IMAGES = {
    "empty image": Case("fit FOLDER", (IMAGE, "data.bad_images"), write(IMAGE, "")),
    "truncated image": Case("fit FOLDER", (IMAGE, "Truncated", "skip"), cut(IMAGE)),
    "text for an image": Case("fit FOLDER", (IMAGE, "mend or remove"), write(IMAGE, "hello")),
    "header of an image": Case("fit FOLDER", (IMAGE, "mend"), write(IMAGE, b"\xff\xd8\xff\xe0")),
    "link to nowhere": Case(
        "fit FOLDER",
        (IMAGE, "No such file", "mend"),
        in_place(IMAGE, lambda file: file.symlink_to("gone")),
    ),
    "bad image in the cache": Case(
        "fit FOLDER --data.cache=true", (IMAGE, "mend or remove"), write(IMAGE, "hello")
    ),
    "bad image before the run": Case(
        "fit FOLDER --data.check=true", (IMAGE, "1 fault: ", "see the report"), cut(IMAGE)
    ),
    "bad image to predict": Case(
        "predict DIGITS --data.predict_dir=images", (IMAGE, "mend or remove"), cut(IMAGE)
    ),
    "nowhere to predict": Case(
        "predict DIGITS --data.predict_dir=gone", ("gone", "point data.predict_dir")
    ),
    "nothing to predict": Case(
        "predict DIGITS --data.predict_dir=.", ("no image", "data.predict_dir"), remove("images")
    ),
    "predictions into a file's folder": Case(
        "predict DIGITS --data.predict_dir=images --trainer.callbacks+=PredictionsCSV "
        "--trainer.callbacks.file=good.ckpt/p.csv",
        ("good.ckpt", "look at disk"),
    ),
    "missing data folder": Case("fit FOLDER --data.root=gone", ("gone", "point data.root")),
    "file for a data folder": Case("fit FOLDER --data.root=good.ckpt", ("good.ckpt", "data.root")),
    "no validation part": Case("fit FOLDER", ("images/val", "data.root"), remove("images/val")),
    "class that is not validated": Case(
        "fit FOLDER", ("images/val", "1 class folders where 2", "'bee'"), remove("images/val/bee")
    ),
    "class that is not trained": Case(
        "fit FOLDER", ("images/val", "3 class folders where 2", "'dog'"), add_class("val")
    ),
    "class without an image": Case(
        "fit FOLDER", ("dog", "remove the empty folder"), add_class("train", "val")
    ),
    "one class": Case(
        "fit FOLDER",
        ("images has 1 class", "2 or more"),
        lambda folder: [shutil.rmtree(folder / f"images/{part}/bee") for part in ("train", "val")],
    ),
    "data set that is not there": Case(
        f"validate --data=smmix_pl.data.CUB {TINY} --data.root=images",
        ("CUB_200_2011", "data.root"),
    ),
}
PROGRAMS = {
    "compare nothing": Case("smmix_pl.reporting.comparison", ("required: [NAME=]RUN", "--help")),
    "compare with a misspelled flag": Case(
        f"{COMPARE} --outptu=x", ("--outptu", "--help"), results()
    ),
    "compare an untested run": Case(
        "smmix_pl.reporting.comparison images", ("results.json", "eval.yaml")
    ),
    "compare what is no JSON": Case(
        COMPARE, ("results.json", "not JSON", "test again"), write("results.json", "{")
    ),
    "compare another JSON": Case(
        COMPARE, ("results.json", "not written by", "test again"), write("results.json", "[1]")
    ),
    "compare results without a model": Case(
        COMPARE, ("results.json", "not written by", "test again"), results(run={})
    ),
    "compare a word for a number": Case(
        COMPARE,
        ("results.json", "not written by", "test again"),
        results(metrics={"top1": {"value": "good", "images": 1, "protocol": {}}}),
    ),
    "compare a curve of two lengths": Case(
        COMPARE,
        ("results.json", "not written by", "test again"),
        results(curves={"occlusion": {"x": [0, 1], "y": [1], "images": 1, "protocol": {}}}),
    ),
    "compare a run with itself": Case(
        f"{COMPARE} results.json", ("two runs are named", "NAME=results.json"), results()
    ),
    "compare into a file": Case(
        f"{COMPARE} --output good.ckpt", ("good.ckpt", "look at disk"), results()
    ),
    "export nothing": Case("smmix_pl.runs.export_weights", ("checkpoint, out", "--help")),
    "export what is missing": Case(
        "smmix_pl.runs.export_weights gone.ckpt o", ("gone.ckpt", "weights come")
    ),
    "export to an unknown format": Case(f"{EXPORT} o.pt", ("o.pt", ".safetensors or .onnx")),
    "export with a word for a number": Case(f"{EXPORT} o --crop_pct=x", ("--crop_pct", "'x'")),
    "export with a crop of nothing": Case(f"{EXPORT} o --crop_pct=0", ("crop_pct is 0", "(0, 1]")),
    "export half a file": Case(f"{EXPORT} o", ("good.ckpt", "get it anew"), cut("good.ckpt")),
    "export what is no checkpoint": Case(
        "smmix_pl.runs.export_weights mine.yaml o", ("mine.yaml", "get it anew"), config("a: [1\n")
    ),
    "export weights alone": Case(
        f"{EXPORT} o", ("good.ckpt", "SMMixModule"), checkpoint(lambda old: old["state_dict"])
    ),
    "export a model without a block": Case(
        f"{EXPORT} o",
        ("good.ckpt", "blocks.0", "get it anew"),
        weights(lambda name, old: None if "blocks.0" in name else old),
    ),
    "export NaN": Case(
        f"{EXPORT} o", ("good.ckpt", "NaN", "older one"), weights(lambda _, old: old * torch.nan)
    ),
    "export without the image size": Case(
        f"{EXPORT} o",
        ("good.ckpt", "SMMixModule"),
        checkpoint(lambda old: old["hyper_parameters"].pop("image_size") and None),
    ),
    "export an unknown model": Case(
        f"{EXPORT} o",
        ("'vit_tinny'", "did you mean"),
        checkpoint(lambda old: old["hyper_parameters"].update(backbone="vit_tinny")),
    ),
    "export into a file": Case(f"{EXPORT} images/val/ant/0.JPEG/o", ("0.JPEG", "look at disk")),
    "export over a folder": Case(
        f"{EXPORT} a.safetensors",
        ("a.safetensors is a folder", "another name"),
        lambda folder: (folder / "a.safetensors").mkdir(),
    ),
    "check nothing": Case("smmix_pl.cli.check_data", ("required", "data")),
    "check what is missing": Case(
        "smmix_pl.cli.check_data SET --data.root=gone", ("gone", "point data.root")
    ),
    "check with a misspelled flag": Case(
        "smmix_pl.cli.check_data SET --data.rot=x", ("rot", "--help")
    ),
    "check an unknown data set": Case(
        "smmix_pl.cli.check_data --data=Nothing", ("Nothing", "--help")
    ),
    "check code": Case("smmix_pl.cli.check_data --data=os.system", ("os.system", "SMMIX_PACKAGES")),
    "check by a missing config": Case("smmix_pl.cli.check_data --config=gone.yaml", ("gone.yaml",)),
    "write shards of nothing": Case("smmix_pl.data.io.shard_writer", ("folder, out", "--help")),
    "write shards of what is missing": Case(
        "smmix_pl.data.io.shard_writer gone out", ("gone", "point")
    ),
    "write shards of no size": Case(
        "smmix_pl.data.io.shard_writer images out --shard_mb=0", ("shard_mb is 0", "at least 0.001")
    ),
    "write shards in an unknown format": Case(
        "smmix_pl.data.io.shard_writer images out --format=zip", ("zip", "'webdataset', 'litdata'")
    ),
    "write shards by a negative seed": Case(
        "smmix_pl.data.io.shard_writer images out --seed=-1", ("seed is -1", "at least 0")
    ),
    "write shards into a file": Case(
        "smmix_pl.data.io.shard_writer images good.ckpt", ("good.ckpt", "look at disk")
    ),
    "write shards over shards": Case(
        "smmix_pl.data.io.shard_writer images out",
        ("out is not empty", "another folder"),
        write("out/classes.txt", "ant"),
    ),
}
CASES = LINE | TYPES | RANGES | CONTRADICTIONS | CHECKPOINTS | IMAGES | PROGRAMS


def words_of(case):
    """The program that a case runs, and its words."""
    words = case.command
    for name, stands_for in WORDS.items():
        words = words.replace(name, stands_for)
    program, _, rest = words.partition(" ")
    return (program, shlex.split(rest)) if program in MAIN else ("lightning", shlex.split(words))


@pytest.fixture(scope="module")
def good_files(tmp_path_factory):
    """Class folders of images, and the checkpoint of a short run on the digits."""
    folder = tmp_path_factory.mktemp("good")
    for part in ("train", "val"):
        write_image_folder(folder / "images" / part, ("ant", "bee"), per_class=4, size=24)
    run = folder / "run"
    cli.main(shlex.split(f"fit {WORDS['DIGITS']} --trainer.default_root_dir={run}"))
    [file] = run.rglob("*.ckpt")
    shutil.move(file, folder / "good.ckpt")
    shutil.rmtree(run)
    return folder


@pytest.fixture
def here(good_files, tmp_path, monkeypatch):
    """A copy of the good files, and the working directory."""
    shutil.copytree(good_files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_one_sentence(case, status, stderr):
    last = stderr.strip().splitlines()[-1]
    assert status == 2, stderr
    assert last.startswith("error: "), stderr
    assert stderr.count("error: ") == 1, stderr
    assert "Traceback" not in stderr
    for word in case.told:
        assert word in last, last


def test_there_are_many_kinds():
    parts = (LINE, TYPES, RANGES, CONTRADICTIONS, CHECKPOINTS, IMAGES, PROGRAMS)
    assert len(CASES) == sum(map(len, parts)) >= 60


@pytest.mark.parametrize("kind", CASES)
def test_bad_input_ends_in_one_sentence(kind, here, capsys):
    case = CASES[kind]
    case.damage(here)
    program, words = words_of(case)
    with pytest.raises(SystemExit) as stop:
        MAIN[program](words)
    assert_one_sentence(case, stop.value.code, capsys.readouterr().err)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        "wrong type in a config",
        "truncated checkpoint",
        "truncated image",
        "compare what is no JSON",
        "export half a file",
        "check with a misspelled flag",
        "write shards of no size",
    ],
)
def test_it_does_in_a_process_of_its_own(kind, here):
    case = CASES[kind]
    case.damage(here)
    program, words = words_of(case)
    module = program.replace("lightning", "smmix_pl")
    run = subprocess.run(
        [sys.executable, "-m", module, *words], capture_output=True, text=True, check=False
    )
    assert_one_sentence(case, run.returncode, run.stderr)


def test_the_good_files_are_good(here, capsys):
    """What the cases damage works without the damage."""
    cli.main(shlex.split(f"validate {WORDS['FOLDER']}"))
    cli.main(shlex.split(f"{VALIDATE} --trainer.logger=false".replace("DIGITS", WORDS["DIGITS"])))
    cli.main(shlex.split(RESUME.replace("DIGITS", WORDS["DIGITS"] + "--trainer.max_epochs=2 ")))
    results()(here)
    compare.main(["results.json"])
    export.main(["good.ckpt", "out"])
    shards.main(["images", "shards"])
    with pytest.raises(SystemExit) as stop:
        check.main(shlex.split(WORDS["SET"]))
    assert stop.value.code == 0
    assert "error" not in capsys.readouterr().err
