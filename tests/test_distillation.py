"""Distillation: its losses, its teacher, and runs on the command line."""

import copy

import numpy as np
import pytest
import timm
import torch
from helpers.programs import refusal, run_here
from helpers.sampling import every
from helpers.small_recipe import FIT, write_recipe
from helpers.small_runs import digits, module, trainer
from torch.nn import functional as F

from smmix_pl import Backbone, CutMix, InputError, SMMix, SMMixLoss
from smmix_pl.callbacks import EMA
from smmix_pl.cli.main import main
from smmix_pl.losses import Distillation, LossConfig
from smmix_pl.mixing import Mixed, soft_labels
from smmix_pl.models.guide_config import GuideConfig
from smmix_pl.models.teacher import Teacher, TeacherConfig
from smmix_pl.runs.export_weights import export

ARGS = {"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
IMAGES = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = soft_labels(torch.arange(6), 10, 0.1)


def student(name="deit_tiny_distilled_patch16_224"):
    torch.manual_seed(0)
    return Backbone(name, 10, 16, model_args=ARGS).train()


def fixed_teacher(images):
    return images.flatten(1)[:, :10]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of a teacher with another patch size."""
    torch.manual_seed(1)
    teacher = Backbone("vit_tiny_patch16_224", 10, 16, model_args=ARGS | {"patch_size": 8})
    torch.save(teacher.state_dict(), path := tmp_path_factory.mktemp("teacher") / "teacher.pth")
    return path


@pytest.fixture
def config(weights):
    return TeacherConfig("vit_tiny_patch16_224", ARGS | {"patch_size": 8}, init_from=str(weights))


def teacher_of(config, **arguments):
    mean, std = (0.5,) * 3, (0.5,) * 3
    return Teacher(config, 10, (16, 16), mean, std, **arguments)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_a_distilled_model_learns_from_the_teacher_with_its_distillation_token(kind):
    backbone = student()
    criterion = SMMixLoss(backbone, distillation=Distillation(fixed_teacher, kind, 0.25, 3.0))
    terms = criterion.terms(Mixed(IMAGES, LABELS, 1.0))
    tokens = backbone.model.forward_features(IMAGES)
    of_class = backbone.model.head(tokens[:, 0])
    of_token = backbone.model.head_dist(tokens[:, 1])
    target = fixed_teacher(IMAGES)
    if kind == "hard":
        expected = F.nll_loss(of_token.log_softmax(1), target.argmax(1))
    else:
        p, q = (target / 3).softmax(1), (of_token / 3).log_softmax(1)
        expected = 9 * (p * (p.log() - q)).sum(1).mean()
    torch.testing.assert_close(terms["distillation"], expected)
    labels = -(LABELS * of_class.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(terms["classification"], labels)
    torch.testing.assert_close(criterion.total(terms), 0.75 * labels + 0.25 * expected)
    criterion.total(terms).backward()
    assert all(weight.grad is not None for weight in backbone.parameters())


def test_evaluation_and_guide_average_both_heads():
    backbone = student()
    SMMixLoss(backbone, distillation=Distillation(fixed_teacher))
    with torch.no_grad():
        tokens = backbone.model.eval().forward_features(IMAGES)
        heads = backbone.model.head(tokens[:, 0]), backbone.model.head_dist(tokens[:, 1])
        mean = (heads[0] + heads[1]) / 2
        torch.testing.assert_close(backbone(IMAGES), mean)
        torch.testing.assert_close(backbone.train()(IMAGES), mean)
    torch.testing.assert_close(backbone.guide(IMAGES).logits, mean)


def test_any_other_model_learns_from_the_teacher_with_its_class_head():
    backbone = student("deit_tiny_patch16_224")
    criterion = SMMixLoss(backbone, distillation=Distillation(fixed_teacher))
    terms = criterion.terms(Mixed(IMAGES, LABELS, 1.0))
    expected = F.cross_entropy(backbone(IMAGES), fixed_teacher(IMAGES).argmax(1))
    torch.testing.assert_close(terms["distillation"], expected)


def test_extra_losses_keep_their_weights():
    backbone = student()
    criterion = SMMixLoss(backbone, distillation=Distillation(fixed_teacher, weight=0.25))
    mixed = SMMix(switch_prob=1)(IMAGES, LABELS, backbone, np.random.default_rng(0))
    terms = criterion.terms(mixed)
    fine_grained = (terms["fine_grained_target"] + terms["fine_grained_source"]) / 2
    expected = 0.75 * terms["classification"] + 0.25 * terms["distillation"]
    torch.testing.assert_close(
        criterion.total(terms, 0.5), expected + 0.5 * (fine_grained + terms["consistency"])
    )


def test_a_teacher_sees_images_in_its_own_normalization_and_stays_in_eval_mode(config):
    teacher = teacher_of(config).train()
    assert not any(part.training for part in teacher.modules())
    assert not any(weight.requires_grad for weight in teacher.parameters())
    own = teacher.model.pretrained_cfg
    mean, std = (torch.tensor(own[name])[:, None, None] for name in ("mean", "std"))
    pixels = IMAGES * 0.5 + 0.5
    torch.testing.assert_close(teacher(IMAGES), teacher.model((pixels - mean) / std))


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_a_teacher_trained_here_sees_images_as_in_its_training(suffix, tmp_path):
    mean, std = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
    trained = module(CutMix(), backbone_args=ARGS, mean=mean, std=std)
    file = tmp_path / "teacher.ckpt"
    run = trainer(tmp_path, max_steps=1, limit_val_batches=0)
    run.fit(trained, digits(mean=mean, std=std))
    run.save_checkpoint(file)
    if suffix != "ckpt":
        export(file, file := file.with_suffix(f".{suffix}"))
    config = TeacherConfig("vit_tiny_patch16_224", ARGS, init_from=str(file))
    teacher = Teacher(config, 10, (16, 16), mean, std)
    torch.testing.assert_close(teacher(IMAGES), trained.eval()(IMAGES))


def test_the_gradient_of_a_teacher_is_that_at_the_pixels_of_the_student(config):
    teacher = teacher_of(config, guide=GuideConfig(), grid=(4, 4))
    own = teacher.model.pretrained_cfg
    mean, std = (torch.tensor(own[name])[:, None, None] for name in ("mean", "std"))
    leaf = IMAGES.clone().requires_grad_()
    logits = teacher.model((leaf * 0.5 + 0.5 - mean) / std)
    F.cross_entropy(logits, LABELS, reduction="sum").backward()
    torch.testing.assert_close(teacher.input_gradient(IMAGES, LABELS), leaf.grad)


def test_the_attention_of_a_guide_is_resized_to_the_grid_of_the_student(config):
    teacher = teacher_of(config, guide=GuideConfig(), grid=(4, 4))
    assert teacher.backbone.grid == (2, 2)
    assert teacher.guide(IMAGES).attention.shape == (6, 4, 4)


def test_a_convolutional_model_can_teach(tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("regnetx_002", num_classes=10).eval()
    torch.save(model.state_dict(), tmp_path / "teacher.pth")
    config = TeacherConfig("regnetx_002", init_from=str(tmp_path / "teacher.pth"))
    images = torch.randn(2, 3, 32, 32)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    teacher = Teacher(config, 10, (32, 32), mean, std)
    torch.testing.assert_close(teacher(images), model(images))


def test_the_teacher_is_no_part_of_the_trained_module(config, tmp_path):
    model = module(
        CutMix(), teacher=config, losses=LossConfig(distillation="hard"), backbone_args=ARGS
    )
    before = copy.deepcopy(model.state_dict())
    trainer(tmp_path, max_steps=2, limit_val_batches=0).fit(model, digits())
    assert model.state_dict().keys() == before.keys()
    assert not any("teacher" in name for name in model.state_dict())
    frozen = torch.load(config.init_from)
    teacher = model.criterion.distillation.teacher
    for name, weight in teacher.model.state_dict().items():
        assert torch.equal(weight, frozen[f"model.{name}"])


def test_the_teacher_guides(config, tmp_path):
    model = module(
        SMMix(switch_prob=1),
        teacher=config,
        guide=GuideConfig(source="teacher"),
        backbone_args=ARGS,
    )
    fit = trainer(tmp_path, max_steps=1, limit_val_batches=0)
    fit.fit(model, digits())
    teacher = teacher_of(config, guide=GuideConfig(), grid=model.backbone.grid)
    seen = []

    class Watched(SMMix):
        def __call__(self, images, labels, guide_model, rng):
            seen.append(guide_model.guide(images))
            return super().__call__(images, labels, guide_model, rng)

    model.mixer = Watched(switch_prob=1)
    trainer(tmp_path, max_steps=1, limit_val_batches=0).fit(model, digits())
    assert seen[0].logits.shape[1] == 10
    assert seen[0].attention.shape[1:] == teacher.grid == model.backbone.grid


def test_two_guides_are_rejected(config, tmp_path):
    model = module(SMMix(), teacher=config, guide=GuideConfig(source="teacher"), backbone_args=ARGS)
    with pytest.raises(InputError, match=r"EMA\.as_guide=true.*model\.guide\.source=teacher"):
        trainer(tmp_path, max_steps=1, callbacks=[EMA(as_guide=True)]).fit(model, digits())


def test_a_distilled_run_on_the_command_line_resumes_exactly(tmp_path, weights):
    write_recipe(tmp_path)
    every_epoch = {"filename": "{epoch}", "save_top_k": -1, "monitor": "val/top1"}
    words = (
        *FIT,
        *("--model.backbone=deit_tiny_distilled_patch16_224", "--model.losses.distillation=hard"),
        f"--model.teacher={{backbone: vit_tiny_patch16_224, init_from: {weights}}}",
        f"--model.teacher.backbone_args={ARGS | {'patch_size': 8}}",
        *("--trainer.max_epochs=2", "--trainer.limit_train_batches=2"),
        f"--trainer.callbacks+={{class_path: ModelCheckpoint, init_args: {every_epoch}}}",
    )
    run_here(*words, cwd=tmp_path)
    [first] = tmp_path.rglob("epoch=0.ckpt")
    [complete] = tmp_path.rglob("epoch=1.ckpt")
    run_here(*words, f"--ckpt_path={first}", cwd=write_recipe(tmp_path / "resumed"))
    [resumed] = (tmp_path / "resumed").rglob("epoch=1.ckpt")
    complete, resumed = (torch.load(path, weights_only=True) for path in (complete, resumed))
    assert complete["hyper_parameters"]["teacher"] is None
    assert complete["state_dict"].keys() == resumed["state_dict"].keys()
    for name, weight in complete["state_dict"].items():
        assert "teacher" not in name
        assert torch.equal(weight, resumed["state_dict"][name]), name


@pytest.mark.parametrize(
    ("options", "named"),
    every(
        4,
        [
            (["--model.losses.distillation=hard"], "model.losses.distillation=hard"),
            (["--model.guide.source=teacher"], "model.guide.source=teacher"),
            (["--model.guide.source=ema"], "model.guide.source=ema"),
            (["--model.losses.distillation=warm"], "distillation"),
            (["--model.losses.temperature=0"], "model.losses.temperature=0"),
            (["--model.losses.distillation_weight=2"], "model.losses.distillation_weight=2"),
            (["--model.teacher={backbone: resnet18}"], "model.teacher.pretrained=False"),
            (
                ["--model.teacher={backbone: resnet18, init_from: weights.pth}"],
                "model.teacher.backbone=resnet18",
            ),
            (
                [
                    "--model.losses.distillation=hard",
                    "--model.teacher={backbone: resnet81, init_from: weights.pth}",
                ],
                "model.teacher.backbone=resnet81",
            ),
            (
                [
                    "--model.losses.distillation=hard",
                    "--model.teacher={backbone: resnet18, init_from: weights.pth}",
                ],
                "weights.pth",
            ),
        ],
    ),
)
def test_invalid_teachers_name_the_option(options, named, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(write_recipe(tmp_path))
    assert named in refusal(main, [*FIT, *options], capsys)


def test_a_teacher_without_a_head_for_the_classes_is_rejected(tmp_path):
    other = Backbone("vit_tiny_patch16_224", 7, 16, model_args=ARGS)
    torch.save(other.state_dict(), tmp_path / "other.pth")
    config = TeacherConfig("vit_tiny_patch16_224", ARGS, init_from=str(tmp_path / "other.pth"))
    with pytest.raises(InputError, match=r"model\.teacher\.backbone=.* 10 classes"):
        teacher_of(config)
