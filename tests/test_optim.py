"""Weight decay groups, learning rate, and schedule."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smmix_pl import Backbone, InputError, OptimConfig
from smmix_pl.optim import create_optimizer, create_schedule, keep_config_settings
from smmix_pl.runs.schedule_warnings import warn_of_schedule


@given(st.integers(1, 100_000))
def test_the_learning_rate_follows_the_global_batch(global_batch):
    assert OptimConfig(lr=5e-4).effective_lr(global_batch) == pytest.approx(
        5e-4 * global_batch / 512
    )
    assert OptimConfig(lr=5e-4, lr_batch=None).effective_lr(global_batch) == 5e-4


def test_no_decay_on_bias_norm_position_and_class_token(tiny_backbone):
    optimizer = create_optimizer(tiny_backbone, OptimConfig(), lr=1e-3)
    decay = {
        id(parameter): group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for name, parameter in tiny_backbone.named_parameters():
        undecayed = parameter.ndim == 1 or name in ("model.pos_embed", "model.cls_token")
        assert decay[id(parameter)] == (0.0 if undecayed else 0.05), name
    assert isinstance(optimizer, torch.optim.AdamW)
    assert len(decay) == len(list(tiny_backbone.parameters()))


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "cait_xxs24_224", "pvt_tiny"])
def test_layer_decay_scales_every_layer_by_its_distance_from_the_heads(name):
    args = {} if name == "pvt_tiny" else {"depth": 3}
    model = Backbone(name, 5, 64, model_args=args)
    config = OptimConfig(lr=1e-3, layer_decay=0.5, warmup_epochs=0)
    optimizer = create_optimizer(model, config, lr=1e-3)
    create_schedule(optimizer, config, 100, 10)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    by_name = {key: rates[id(weight)] for key, weight in model.named_parameters()}
    assert by_name["model.head.weight"] == by_name["token_head.weight"] == 1e-3
    blocks = "blocks" if name != "pvt_tiny" else "block3"
    ladder = [by_name[f"model.{blocks}.{index}.norm1.weight"] for index in range(2)]
    assert ladder[1] == pytest.approx(2 * ladder[0])
    assert ladder[1] < 1e-3
    stem = next(rate for key, rate in by_name.items() if "patch_embed" in key)
    assert stem == min(by_name.values())


def test_layer_decay_needs_groups_of_layers():
    with pytest.raises(InputError, match=r"layer_decay.*caformer_s18"):
        create_optimizer(Backbone("caformer_s18", 5, 64), OptimConfig(layer_decay=0.5), lr=1e-3)


def rates(config, epochs=20, steps_per_epoch=10, lr=1e-3):
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = torch.optim.AdamW([weight], lr=lr)
    schedule = create_schedule(optimizer, config, epochs * steps_per_epoch, steps_per_epoch)
    seen = []
    for step in range(epochs * steps_per_epoch):
        seen.append(optimizer.param_groups[0]["lr"])
        schedule.step_update(step + 1)
        if (step + 1) % steps_per_epoch == 0:
            schedule.step((step + 1) // steps_per_epoch)
    return torch.tensor(seen)


def test_warm_up_then_cosine():
    seen = rates(OptimConfig(warmup_epochs=5))
    assert seen[0] == pytest.approx(1e-6)
    assert (seen[:50].diff() > 0).all()
    expected = 1e-5 + 0.5 * (1e-3 - 1e-5) * (1 + torch.cos(torch.pi * torch.arange(50, 200) / 200))
    torch.testing.assert_close(seen[50:], expected)


def test_an_update_per_epoch_keeps_the_rate_within_it():
    seen = rates(OptimConfig(warmup_epochs=5, interval="epoch")).view(20, 10)
    assert (seen == seen[:, :1]).all()
    assert seen[0, 0] == pytest.approx(1e-6)
    expected = 1e-5 + 0.5 * (1e-3 - 1e-5) * (1 + torch.cos(torch.pi * torch.arange(5, 20) / 20))
    torch.testing.assert_close(seen[5:, 0], expected)


@given(st.integers(0, 6), st.integers(7, 20), st.sampled_from(["step", "epoch"]))
def test_with_a_warm_up_prefix_the_cosine_starts_at_the_full_rate(warmup, epochs, interval):
    config = OptimConfig(warmup_epochs=warmup, warmup_prefix=True, interval=interval)
    per_update = 10 if interval == "epoch" else 1
    seen = rates(config, epochs)[::per_update]
    start, length = warmup * 10 // per_update, (epochs - warmup) * 10 // per_update
    cosine = 0.5 * (1 + torch.cos(torch.pi * torch.arange(length) / length))
    torch.testing.assert_close(seen[start:], 1e-5 + (1e-3 - 1e-5) * cosine)
    assert (seen[:start].diff() > 0).all()


@pytest.mark.parametrize("warmup", [{"warmup_steps": 100}, {"warmup_epochs": 10}])
def test_a_warm_up_as_long_as_the_run_is_warned_of(warmup):
    with pytest.warns(UserWarning, match=next(iter(warmup))):
        warn_of_schedule(OptimConfig(**warmup), 1e-3, total_steps=100, steps_per_epoch=10)


def test_settings_reach_optimizers_that_have_them():
    weight = torch.nn.Linear(2, 2)
    lion = create_optimizer(weight, OptimConfig(name="lion", betas=(0.8, 0.9)), lr=1e-3)
    assert lion.param_groups[0]["betas"] == (0.8, 0.9)
    adam = create_optimizer(weight, OptimConfig(name="lookahead_adamw", eps=1e-4), lr=1e-3)
    assert adam.param_groups[0]["eps"] == 1e-4
    lamb = create_optimizer(weight, OptimConfig(name="lamb", eps=1e-5), lr=1e-3)
    assert lamb.param_groups[0]["eps"] == 1e-5
    create_optimizer(weight, OptimConfig(name="sgd"), lr=1e-3)


def after_steps(name, steps):
    """An optimizer that has trained, and a new one for the same weights."""
    model = torch.nn.Linear(140, 150)
    trained, new = (create_optimizer(model, OptimConfig(name=name), lr=1e-3) for _ in range(2))
    inner = getattr(new, "_base_optimizer", new)
    inner.register_load_state_dict_pre_hook(keep_config_settings)
    for _ in range(steps):
        model(torch.ones(1, 140)).sum().backward()
        trained.step()
    return trained, new


@pytest.fixture
def trained():
    """An optimizer after one step."""
    trained, new = after_steps("adamw", 1)
    new.load_state_dict(trained.state_dict())
    return new


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        {"step": torch.tensor(1.0)},
        {"step": "1", "exp_avg": torch.zeros(150, 140), "exp_avg_sq": torch.zeros(150, 140)},
        {"step": torch.tensor(1.0), "exp_avg": torch.zeros(1), "exp_avg_sq": torch.zeros(150, 140)},
        {"step": torch.tensor(1.0), "exp_avg": torch.zeros(150, 140), "exp_avg_sq": [0.0]},
    ],
)
def test_moments_of_other_shapes_are_rejected(trained, wrong):
    """The fused kernel would read and write past their end."""
    saved = trained.state_dict()
    [decayed] = [g["params"] for g in saved["param_groups"] if g["weight_decay"]]
    with pytest.raises(InputError, match="corrupt state"):
        trained.load_state_dict(saved | {"state": saved["state"] | {decayed[0]: wrong}})


@pytest.mark.parametrize(
    "name", ["sgd", "lamb", "adan", "adafactor", "lion", "muon", "lookahead_adamw"]
)
def test_the_state_of_any_optimizer_is_checked(name):
    optimizer, new = after_steps(name, 7)  # Lookahead acts after 6 steps
    saved = optimizer.state_dict()
    new.load_state_dict(saved)
    for index, state in saved["state"].items():
        for key in state:
            for wrong in (torch.zeros(7), [0.0], "x"):
                states = saved["state"] | {index: state | {key: wrong}}
                with pytest.raises(InputError, match=f"weight {index}"):
                    new.load_state_dict(saved | {"state": states})


@pytest.mark.parametrize("name", ["lamb", "adan"])
def test_counters_of_an_optimizer_are_checked(name):
    optimizer, new = after_steps(name, 1)
    saved = optimizer.state_dict()
    groups = [group | {"step": "x"} for group in saved["param_groups"]]
    with pytest.raises(InputError, match="step"):
        new.load_state_dict(saved | {"param_groups": groups})


def test_switches_of_the_optimizer_come_from_the_config(trained):
    saved = trained.state_dict()
    switched = [group | {"maximize": True, "amsgrad": True} for group in saved["param_groups"]]
    trained.load_state_dict(saved | {"param_groups": switched})
    for group in trained.param_groups:
        assert not group["maximize"]
        assert not group["amsgrad"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"lr": 0.0}, "model.optim.lr=0.0"),
        ({"lr_batch": 0}, "model.optim.lr_batch=0"),
        ({"name": "sgd", "eps": 0.1}, "model.optim.eps=0.1"),
        ({"name": "adamm"}, "model.optim.name=adamm"),
    ],
)
def test_invalid_settings_are_reported(arguments, named):
    with pytest.raises(InputError, match=named):
        OptimConfig(**arguments)
