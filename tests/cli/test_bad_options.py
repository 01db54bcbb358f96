"""Invalid options and configs: one line that names the option and its value, exit status 2."""

import os

import pytest
from helpers.bad_input import Case, assert_reported, config, fit, words_of
from helpers.sampling import every

from smmix_pl.cli.main import main

COMMAND_LINE = {
    "option before the command": Case("--config digits.yaml", ("--config",)),
    "misspelled command": Case("fti", ("fti", "fit")),
    "no dataset": Case("fit", ("data",)),
    "option of a dataset that is not named": Case("fit --data.root=images", ("--data",)),
    "option without a value": Case("fit --config", ("--config",)),
    "misspelled option": fit("--model.tokn_head=own", "model.tokn_head", "model.token_head"),
    "misspelled option of the dataset": fit("--data.bach_size=2", "bach_size", "batch_size"),
    "misspelled option of the mixer": fit(
        "--model.mixer.swich_prob=1", "swich_prob", "switch_prob"
    ),
    "misspelled option of a settings group": fit("--model.optim.lrr=1", "lrr", "lr"),
    "misspelled mixer": fit("--model.mixer=Cutmix", "Cutmix", "CutMix"),
    "misspelled dataset": Case("fit --data=ImageNett", ("ImageNett", "ImageNet")),
    "value that the data sets": fit("--model.num_classes=5", "model.num_classes"),
    "unknown config": Case("fit --config deit_x.yaml", ("deit_x.yaml", "deit_t.yaml")),
    "folder as a config": Case("fit --config .", ("--config", ".")),
}
CONFIGS = {
    "not YAML": ("a: [1\nb: {", ("mine.yaml", "line 2")),
    "binary": (bytes(range(256)), ("mine.yaml",)),
    "list": ("- a\n- b\n", ("mine.yaml",)),
    "word": ("hello\n", ("mine.yaml",)),
    "duplicate key": (
        "model:\n  token_head: own\n  token_head: shared\n",
        ("mine.yaml", "token_head", "line 3"),
    ),
    "misspelled section": ("modle: {token_head: own}\n", ("modle", "model")),
    "misspelled key": ("model: {bakcbone: deit}\n", ("bakcbone", "model.backbone")),
    "wrong type": ("trainer: {max_epochs: many}\n", ("trainer.max_epochs", "many")),
    "value that the data sets": (
        "model: {image_size: [8, 8]}\n",
        ("mine.yaml", "model.image_size"),
    ),
}
TYPES = {
    "word for a count": fit("--data.batch_size=many", "batch_size", "many"),
    "fraction for a count": fit("--data.batch_size=2.5", "batch_size", "2.5"),
    "null for a count": fit("--data.batch_size=null", "data.batch_size"),
    "word for a number": fit("--model.optim.lr=fast", "model.optim.lr", "fast"),
    "word for a switch": fit("--model.pretrained=maybe", "model.pretrained", "maybe"),
    "three sides of an image": fit("--data.image_size=[8,8,8]", "image_size", "[8, 8, 8]"),
    "two channels": fit("--data.mean=[0.5,0.5]", "mean", "[0.5, 0.5]"),
    "number for a table": fit("--model.backbone_args=7", "model.backbone_args", "7"),
    "unknown choice": fit("--model.guide.readout=classs", "readout", "classs"),
    "unknown dataset": fit("--data=smmix_pl.Digts", "smmix_pl.Digts"),
    "unknown mixer": fit("--model.mixer=CutMux", "model.mixer", "CutMux"),
    "dataset for a mixer": fit("--model.mixer=smmix_pl.Digits", "smmix_pl.Digits"),
    "function for a mixer": fit("--model.mixer=os.system", "os.system", "SMMIX_PACKAGES"),
    "unknown callback": fit("--trainer.callbacks+=Nothing", "trainer.callbacks", "Nothing"),
    "unknown optimizer": fit("--model.optim.name=adamm", "model.optim.name", "adamm", "adam"),
    "unknown model": fit("--model.backbone=deit_tinny", "deit_tinny"),
    "unknown tag of a model": fit("--model.backbone=vit_tiny_patch16_224.foo", "foo"),
    "unknown policy": fit("--data.train_transform.auto_augment=strong", "auto_augment", "strong"),
    "unknown kernel": fit(
        "--data.train_transform.interpolation=cubic", "train_transform.interpolation", "cubic"
    ),
    "unknown kernel in evaluation": fit(
        "--data.eval_transform.interpolation=cubic", "eval_transform.interpolation", "cubic"
    ),
}
RANGES = {
    "images in a batch": fit("--data.batch_size=0", "data.batch_size", "0"),
    "images in a batch, more than there are": fit("--data.batch_size=9999", "data.batch_size"),
    "workers": fit("--data.num_workers=-1", "data.num_workers", "-1"),
    "pixels": fit("--data.image_size=0", "data.image_size", "0"),
    "pixels that patches do not divide": fit("--data.image_size=18", "18", "16"),
    "pixels of one token": fit("--data.image_size=4", "1 x 1"),
    "learning rate": fit("--model.optim.lr=0", "model.optim.lr", "0.0"),
    "learning rate, infinite": fit("--model.optim.lr=.inf", "model.optim.lr", "inf"),
    "weight decay": fit("--model.optim.weight_decay=-1", "model.optim.weight_decay", "-1.0"),
    "betas": fit("--model.optim.betas=[1.5,0.9]", "model.optim.betas[0]", "1.5"),
    "epsilon": fit("--model.optim.eps=-1", "model.optim.eps", "-1.0"),
    "warm-up": fit("--model.optim.warmup_epochs=.inf", "model.optim.warmup_epochs", "inf"),
    "warm-up rate": fit("--model.optim.warmup_lr=-1", "model.optim.warmup_lr", "-1.0"),
    "last rate": fit("--model.optim.min_lr=-1", "model.optim.min_lr", "-1.0"),
    "label smoothing": fit(
        "--model.losses.label_smoothing=1", "model.losses.label_smoothing", "1.0"
    ),
    "weight of a loss": fit("--model.losses.fine_grained=-1", "model.losses.fine_grained", "-1.0"),
    "weight of a loss, not a number": fit(
        "--model.losses.consistency=.nan", "model.losses.consistency", "nan"
    ),
    "soft start": fit(
        "--model.losses.soft_start_epochs=-1", "model.losses.soft_start_epochs", "-1"
    ),
    "drop path": fit("--model.backbone_args.drop_path_rate=2", "drop_path_rate", "2"),
    "held-out fraction": fit("--data.held_out=1", "data.held_out", "1.0"),
    "repeats": fit("--data.repeats=1000000000000", "data.repeats", "1000000000000"),
    "fraction of the training set": fit("--data.train_fraction=0", "data.train_fraction", "0.0"),
    "shots, more than there are": fit("--data.shots=9999", "data.shots", "9999"),
    "standard deviation": fit("--data.std=[0,1,1]", "data.std"),
    "mean": fit("--data.mean=[.nan,0,0]", "data.mean", "nan"),
    "scale": fit("--data.train_transform.scale=[1,0.5]", "train_transform.scale", "0.5"),
    "aspect ratio": fit("--data.train_transform.ratio=[-1,1]", "train_transform.ratio", "-1.0"),
    "flips": fit("--data.train_transform.hflip=2", "train_transform.hflip", "2.0"),
    "crop": fit("--data.eval_transform.crop_ratio=0", "eval_transform.crop_ratio", "0.0"),
    "switch probability": fit("--model.mixer.switch_prob=2", "switch_prob", "2.0"),
    "alpha": fit("--model.mixer.mixup_alpha=.nan", "nan"),
    "region side": fit("--model.mixer.max_side_ratio=1.5", "max_side_ratio", "1.5"),
    "grid": fit("--model.mixer=GridMix --model.mixer.grid=1", "grid", "1"),
    "grid, negative": fit("--model.mixer=AttentiveCutMix --model.mixer.grid=-9", "-9"),
    "heads": fit("--model.backbone_args.num_heads=0", "num_heads", "0"),
    "heads that do not divide": fit("--model.backbone_args.num_heads=5", "num_heads", "5"),
    "size of the guide pass": fit("--model.guide.size=-16", "model.guide.size", "-16"),
    "seed": fit("--seed_everything=-1", "seed_everything", "-1"),
    "accumulated batches": fit(
        "--trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches", "0"
    ),
    "validation every 0 epochs": fit(
        "--trainer.check_val_every_n_epoch=0", "trainer.check_val_every_n_epoch", "0"
    ),
    "validation every 0 batches": fit(
        "--trainer.val_check_interval=0", "trainer.val_check_interval", "0"
    ),
    "training batches": fit("--trainer.limit_train_batches=0", "trainer.limit_train_batches", "0"),
    "test batches": Case(
        "test DIGITS --trainer.limit_test_batches=0", ("trainer.limit_test_batches", "0")
    ),
    "gradient clipping": fit("--trainer.gradient_clip_val=-1", "trainer.gradient_clip_val", "-1"),
    "devices": fit("--trainer.devices=0", "devices", "0"),
    "bins": fit("--trainer.callbacks+=Calibration --trainer.callbacks.n_bins=0", "n_bins", "0"),
    "occlusion": fit(
        "--trainer.callbacks+=Occlusion --trainer.callbacks.ratios=[2]", "Occlusion", "2.0"
    ),
    "EMA decay": fit("--trainer.callbacks+=EMA --trainer.callbacks.decay=1.5", "decay", "1.5"),
    "step of PGD": fit("--trainer.callbacks+=PGD --trainer.callbacks.step=.nan", "nan"),
    "examples": fit(
        "--trainer.callbacks+=MixedImages --trainer.callbacks.examples=0", "examples", "0"
    ),
    "errors to keep": fit(
        "--trainer.callbacks+=ConfidentErrors --trainer.callbacks.count=0", "count", "0"
    ),
}
CONTRADICTIONS = {
    "two sources of weights": fit(
        "--model.pretrained=true --model.init_from=good.ckpt", "model.init_from", "good.ckpt"
    ),
    "pretrained weights that timm does not have": fit(
        "--model.backbone=pvt_tiny --model.backbone_args=null --model.pretrained=true "
        "--data.image_size=32",
        "pvt_tiny",
        "model.pretrained",
    ),
    "guide block without the logits that SMMix needs": fit(
        "--model.guide.block=1", "model.guide.block", "1", "model.mixer.consistency"
    ),
    "model without attention": fit("--model.backbone=resnet18 --model.backbone_args={}", "ResNet"),
    "model without class logits": fit("--model.backbone_args.global_pool=''", "global_pool"),
    "number of classes": fit("--model.backbone_args.num_classes=3", "num_classes", "3"),
    "epsilon of an optimizer that has none": fit(
        "--model.optim.name=lion --model.optim.eps=0.1", "model.optim.eps", "0.1", "lion"
    ),
    "learning rate that overflows": fit("--model.optim.lr=1e300", "model.optim.lr", "1e+300"),
    "schedule without an end": fit("--trainer.max_epochs=-1", "trainer.max_epochs", "-1"),
    "metric that is not logged": fit(
        "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor=val/acc", "val/acc"
    ),
    "unknown accelerator": fit("--trainer.accelerator=abacus", "abacus"),
    "batch size finder": fit("--trainer.callbacks+=BatchSizeFinder", "BatchSizeFinder"),
    "best checkpoint before training": fit("--ckpt_path=best", "--ckpt_path", "best"),
    "last checkpoint without a CSVLogger": fit("--ckpt_path=last", "CSVLogger"),
    "last checkpoint of a validation": Case(
        "validate DIGITS --ckpt_path=last", ("--ckpt_path", "last", "validate")
    ),
    "test of untrained weights": Case("test DIGITS", ("--ckpt_path", "pretrained")),
    "prediction of untrained weights": Case("predict DIGITS", ("--ckpt_path", "init_from")),
    "empty checkpoint": fit("--ckpt_path=", "--ckpt_path"),
    "empty file of weights": fit("--model.init_from=", "file"),
}
CASES = (
    COMMAND_LINE
    | {
        f"config: {kind}": Case("fit DIGITS --config mine.yaml", named, config(content))
        for kind, (content, named) in CONFIGS.items()
    }
    | {f"type: {kind}": case for kind, case in TYPES.items()}
    | {f"range: {kind}": case for kind, case in RANGES.items()}
    | {f"contradiction: {kind}": case for kind, case in CONTRADICTIONS.items()}
)


@pytest.mark.parametrize("kind", every(5, CASES))
def test_invalid_option_is_reported(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    case = CASES[kind]
    case.damage(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(words_of(case.command))
    assert_reported(case, stop.value.code, capsys.readouterr().err)
    assert os.listdir(tmp_path) in ([], ["mine.yaml"])
