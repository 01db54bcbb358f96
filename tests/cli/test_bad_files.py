"""Invalid and damaged files: one line that names the file or option, exit status 2."""

import os
import shutil

import pytest
import torch
from helpers import processes
from helpers.bad_input import (
    IMAGE,
    Case,
    add_class,
    assert_reported,
    checkpoint,
    config,
    fit,
    flip_bits,
    remove,
    replace,
    results,
    truncate,
    weights,
    words_of,
    write,
)
from helpers.image_folders import write_image_folder
from helpers.sampling import every
from PIL import Image

from smmix_pl.cli.main import main

VALIDATE = "validate DIGITS --ckpt_path=good.ckpt"
RESUME = "fit DIGITS --trainer.max_epochs=2 --ckpt_path=good.ckpt"
PREDICT = "predict DIGITS --ckpt_path=good.ckpt"
INIT = "fit DIGITS --model.init_from=good.ckpt"
EXPORT = "export good.ckpt"
COMPARE = "compare results.json"

CHECKPOINTS = {
    "missing": Case("validate DIGITS --ckpt_path=gone.ckpt", ("--ckpt_path", "gone.ckpt")),
    "folder": Case("validate DIGITS --ckpt_path=images", ("--ckpt_path", "images")),
    "empty": Case(VALIDATE, ("good.ckpt",), write("good.ckpt", "")),
    "truncated": Case(VALIDATE, ("good.ckpt",), truncate("good.ckpt")),
    "flipped bits": Case(VALIDATE, ("good.ckpt", "checksum"), flip_bits("good.ckpt")),
    "web page": Case(VALIDATE, ("good.ckpt",), write("good.ckpt", "<html>404</html>")),
    "weights alone": Case(
        VALIDATE, ("good.ckpt", "init_from"), checkpoint(lambda old: old["state_dict"])
    ),
    "deeper model": Case(f"{VALIDATE} --model.backbone_args.depth=3", ("model.backbone",)),
    "other classes": Case("validate FOLDER --ckpt_path=good.ckpt", ("head.weight",)),
    "missing weight": Case(
        VALIDATE,
        ("1 of 34", "patch_embed.proj.bias"),
        weights(lambda name, old: None if name.endswith("patch_embed.proj.bias") else old),
    ),
    "extra weight": Case(
        VALIDATE, ("extra",), checkpoint(lambda old: old["state_dict"].update(extra=torch.zeros(1)))
    ),
    "integer weights": Case(VALIDATE, ("34 of 34",), weights(lambda _, old: old.int())),
    "complex weights": Case(
        VALIDATE, ("good.ckpt", "complex64"), weights(lambda _, old: old.cfloat())
    ),
    "weights of NaN": Case(VALIDATE, ("good.ckpt", "NaN"), weights(lambda _, old: old * torch.nan)),
    "lists as weights": Case(VALIDATE, ("good.ckpt", "list"), weights(lambda _, old: old.tolist())),
    "resume without optimizer": Case(
        RESUME,
        ("optimizer_states", "--model.init_from"),
        checkpoint(lambda old: old.pop("optimizer_states") and None),
    ),
    "resume without progress": Case(
        RESUME, ("loops", "--model.init_from"), checkpoint(lambda old: old.pop("loops") and None)
    ),
    "resume at a word": Case(
        RESUME,
        ("global_step", "--model.init_from"),
        checkpoint(lambda old: old.update(global_step="many")),
    ),
    "resume with another optimizer": Case(
        f"{RESUME} --model.optim.name=sgd", ("SGD", "--model.init_from")
    ),
    "resume with other parameter groups": Case(
        f"{RESUME} --model.optim.weight_decay=0", ("AdamW", "--model.init_from")
    ),
    "resume from damaged files only": Case(
        "fit DIGITS --trainer.logger=CSVLogger --trainer.logger.save_dir=. --trainer.logger.name=r "
        "--ckpt_path=last",
        ("r/version_0/checkpoints", "last.ckpt"),
        write("r/version_0/checkpoints/last.ckpt", "torn"),
    ),
    "missing file to start from": fit("--model.init_from=gone.pth", "gone.pth"),
    "broken safetensors to start from": Case(
        "fit DIGITS --model.init_from=w.safetensors",
        ("w.safetensors",),
        write("w.safetensors", "<html>"),
    ),
    "other model to start from": Case(
        f"{INIT} --model.backbone_args.depth=9", ("good.ckpt", "30 of 114", "model.backbone")
    ),
    "integers to start from": Case(INIT, ("good.ckpt", "int32"), weights(lambda _, old: old.int())),
    "NaN to start from": Case(INIT, ("good.ckpt", "NaN"), weights(lambda _, old: old * torch.nan)),
    "nothing to start from": Case(
        INIT, ("good.ckpt",), checkpoint(lambda old: old.update(state_dict={}))
    ),
}
IMAGES = {
    "empty": Case("fit FOLDER", (IMAGE, "data.bad_images"), write(IMAGE, "")),
    "truncated": Case("fit FOLDER", (IMAGE, "data.bad_images"), truncate(IMAGE)),
    "text": Case("fit FOLDER", (IMAGE,), write(IMAGE, "hello")),
    "header alone": Case("fit FOLDER", (IMAGE,), write(IMAGE, b"\xff\xd8\xff\xe0")),
    "one row of pixels": Case(
        "fit FOLDER",
        (IMAGE, "30000 x 1"),
        replace(IMAGE, lambda file: Image.new("RGB", (30000, 1)).save(file, "JPEG")),
    ),
    "pipe": Case("fit FOLDER", (IMAGE,), replace(IMAGE, lambda file: os.mkfifo(file))),
    "broken link": Case(
        "fit FOLDER", (IMAGE,), replace(IMAGE, lambda file: file.symlink_to("gone"))
    ),
    "bad image in the cache": Case("fit FOLDER --data.cache=host", (IMAGE,), write(IMAGE, "hello")),
    "bad image found by the check": Case(
        "fit FOLDER --data.check=true", (IMAGE, "1 fault"), truncate(IMAGE)
    ),
    "bad image to predict": Case(f"{PREDICT} --data.predict_dir=images", (IMAGE,), truncate(IMAGE)),
    "missing folder to predict": Case(
        f"{PREDICT} --data.predict_dir=gone", ("data.predict_dir", "gone")
    ),
    "empty folder to predict": Case(
        f"{PREDICT} --data.predict_dir=new",
        ("data.predict_dir",),
        lambda folder: (folder / "new").mkdir(),
    ),
    "predictions into the folder of a file": Case(
        f"{PREDICT} --data.predict_dir=images --trainer.callbacks+=PredictionsCSV "
        "--trainer.callbacks.file=good.ckpt/p.csv",
        ("good.ckpt",),
    ),
    "missing folder": Case("fit FOLDER --data.root=gone", ("data.root", "gone")),
    "file as a folder": Case("fit FOLDER --data.root=good.ckpt", ("data.root", "good.ckpt")),
    "no validation split": Case("fit FOLDER", ("images/val",), remove("images/val")),
    "class without validation": Case("fit FOLDER", ("images/val", "bee"), remove("images/val/bee")),
    "class without training": Case("fit FOLDER", ("images/val", "dog"), add_class("val")),
    "class without images": Case("fit FOLDER", ("dog",), add_class("train", "val")),
    "one class": Case("fit FOLDER", ("images",), remove("images/train/bee", "images/val/bee")),
    "missing dataset": Case(
        "fit FOLDER --data=smmix_pl.data.CUB --data.root=images", ("CUB_200_2011", "data.root")
    ),
}
RESULTS = {
    "not JSON": write("results.json", "{"),
    "other JSON": write("results.json", "[1]"),
    "no model": results(run={}),
    "word for a number": results(metrics={"top1": {"value": "a", "images": 1, "protocol": {}}}),
    "curve of two lengths": results(
        curves={"occlusion": {"x": [0, 1], "y": [1], "images": 1, "protocol": {}}}
    ),
}
TOOLS = {
    "compare without runs": Case("compare", ("runs",)),
    "compare with a misspelled option": Case(f"{COMPARE} --outptu=x", ("--outptu",), results()),
    "compare an untested run": Case("compare images", ("images/results.json",)),
    "compare a run with itself": Case(
        f"{COMPARE} results.json", ("results.json", "NAME=results.json"), results()
    ),
    "compare into a file": Case(f"{COMPARE} --output good.ckpt", ("good.ckpt",), results()),
    "report on what is no run": Case("report gone", ("gone", "metrics.csv", "results.json")),
    "report on a run twice": Case("report . .", (".", "NAME=."), results()),
    "attend to a missing folder": Case("attend gone --checkpoint good.ckpt", ("IMAGES", "gone")),
    "attend without a model": Case("attend images/train/ant", ("--checkpoint", "--backbone")),
    "attend by a missing checkpoint": Case("attend images --checkpoint gone.ckpt", ("gone.ckpt",)),
    "attend with an unknown model": Case(
        "attend images/train/ant --backbone vit_tinny", ("vit_tinny",)
    ),
    "attend with a readout that the model lacks": Case(
        "attend images/train/ant --backbone resnet18 --init_from good.ckpt --readout class",
        ("--readout", "class", "similarity"),
    ),
    "attend with a region as large as the grid": Case(
        "attend images/train/ant --checkpoint good.ckpt --side 9", ("--side", "9")
    ),
    "attend into another format": Case(
        "attend images --checkpoint good.ckpt --output attention.jpg",
        ("--output", "attention.jpg"),
    ),
    "export nothing": Case("export", ("checkpoint",)),
    "export without an output": Case("export good.ckpt", ("output",)),
    "export a missing file": Case("export gone.ckpt --output o", ("gone.ckpt",)),
    "export to an unknown format": Case(f"{EXPORT} --output o.pt", ("o.pt",)),
    "export with a word for a number": Case(f"{EXPORT} --output o --crop_pct=x", ("crop_pct", "x")),
    "export with a crop of nothing": Case(f"{EXPORT} --output o --crop_pct=0", ("crop_pct", "0")),
    "export half a file": Case(f"{EXPORT} --output o", ("good.ckpt",), truncate("good.ckpt")),
    "export what is no checkpoint": Case(
        "export mine.yaml --output o", ("mine.yaml",), config("a: [1\n")
    ),
    "export weights alone": Case(
        f"{EXPORT} --output o", ("good.ckpt",), checkpoint(lambda old: old["state_dict"])
    ),
    "export a model without a block": Case(
        f"{EXPORT} --output o",
        ("good.ckpt",),
        weights(lambda name, old: None if "blocks.0" in name else old),
    ),
    "export NaN": Case(
        f"{EXPORT} --output o", ("good.ckpt", "NaN"), weights(lambda _, old: old * torch.nan)
    ),
    "export without the image size": Case(
        f"{EXPORT} --output o",
        ("good.ckpt",),
        checkpoint(lambda old: old["hyper_parameters"].pop("image_size") and None),
    ),
    "export an unknown model": Case(
        f"{EXPORT} --output o",
        ("vit_tinny",),
        checkpoint(lambda old: old["hyper_parameters"].update(backbone="vit_tinny")),
    ),
    "export into the folder of a file": Case(f"{EXPORT} --output {IMAGE}/o", (IMAGE,)),
    "export over a folder": Case(
        f"{EXPORT} --output a.safetensors",
        ("a.safetensors",),
        lambda folder: (folder / "a.safetensors").mkdir(),
    ),
    "check nothing": Case("check-data", ("data",)),
    "check a missing folder": Case("check-data SET --data.root=gone", ("data.root", "gone")),
    "check with a misspelled option": Case("check-data SET --data.rot=x", ("rot",)),
    "check an unknown dataset": Case("check-data --data=Nothing", ("Nothing",)),
    "check a function": Case("check-data --data=os.system", ("os.system", "SMMIX_PACKAGES")),
    "check by a missing config": Case("check-data --config=gone.yaml", ("--config", "gone.yaml")),
    "write shards of nothing": Case("make-shards", ("folder",)),
    "write shards of a missing folder": Case("make-shards gone --output out", ("gone",)),
    "write shards of no size": Case(
        "make-shards images --output out --shard_mb=0", ("shard_mb", "0.0")
    ),
    "write shards in an unknown format": Case(
        "make-shards images --output out --format=zip", ("format", "zip")
    ),
    "write shards by a negative seed": Case(
        "make-shards images --output out --seed=-1", ("seed", "-1")
    ),
    "write shards into a file": Case("make-shards images --output good.ckpt", ("good.ckpt",)),
    "write shards over shards": Case(
        "make-shards images --output out", ("out",), write("out/classes.txt", "ant")
    ),
}
CASES = (
    {f"checkpoint: {kind}": case for kind, case in CHECKPOINTS.items()}
    | {f"image: {kind}": case for kind, case in IMAGES.items()}
    | {
        f"results: {kind}": Case(COMPARE, ("results.json",), damage)
        for kind, damage in RESULTS.items()
    }
    | TOOLS
)


@pytest.fixture(scope="module")
def valid_files(tmp_path_factory):
    """Class folders of images, and the checkpoint of a short run on the digits."""
    folder = tmp_path_factory.mktemp("valid")
    for split in ("train", "val"):
        write_image_folder(folder / "images" / split, ("ant", "bee"), per_class=4, size=24)
    run = folder / "run"
    main(words_of(f"fit DIGITS --trainer.default_root_dir={run}"))
    [file] = run.rglob("*.ckpt")
    shutil.move(file, folder / "good.ckpt")
    shutil.rmtree(run)
    return folder


@pytest.fixture
def here(valid_files, tmp_path, monkeypatch):
    """A copy of the valid files, as the working directory."""
    shutil.copytree(valid_files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", every(4, CASES))
def test_invalid_file_is_reported(kind, here, capsys):
    case = CASES[kind]
    case.damage(here)
    with pytest.raises(SystemExit) as stop:
        main(words_of(case.command))
    assert_reported(case, stop.value.code, capsys.readouterr().err)


@pytest.mark.parametrize(
    "kind", ["image: truncated", pytest.param("export half a file", marks=pytest.mark.slow)]
)
def test_invalid_file_is_reported_by_the_program(kind, here):
    case = CASES[kind]
    case.damage(here)
    run = processes.run(*words_of(case.command), cwd=here)
    assert_reported(case, run.returncode, run.stderr)


def test_undamaged_files_are_accepted(here, capsys):
    results()(here)
    for command in (
        "fit FOLDER",
        VALIDATE,
        RESUME,
        COMPARE,
        f"{EXPORT} --output exported",
        "make-shards images --output shards",
        "check-data SET",
        "attend images/train/ant --checkpoint good.ckpt",
    ):
        main(words_of(command))
    assert "error" not in capsys.readouterr().err
