"""`compile`: equal results, no trace on the model, one graph per pass for all region sides."""

from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from smmix_pl import Mixup, SMMix, SMMixModule
from smmix_pl.mixing import soft_labels
from smmix_pl.models import backbone
from smmix_pl.models.guide import find_short_pass

SIZE = {"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
PVT = {"embed_dims": (8, 16, 20, 32), "num_heads": (1, 2, 2, 4), "depths": (1, 1, 1, 2)}
SWIN = {"embed_dim": 8, "num_heads": (1, 2, 2, 4), "depths": (1, 1, 1, 2), "window_size": 2}
MODELS = {
    "deit_tiny_patch16_224": SIZE,
    "cait_xxs24_224": SIZE,
    "swin_tiny_patch4_window7_224": SWIN,
    "pvt_v2_b1": PVT,
    "deit_tiny_distilled_patch16_224": SIZE,
    "pvt_tiny": PVT,
    "vit_tiny_patch16_224": SIZE | {"global_pool": "avg"},
}


SOME = [
    pytest.param(name, marks=() if name == "deit_tiny_patch16_224" else pytest.mark.slow)
    for name in MODELS
]
"""All models, of which `make test` compiles one."""


@pytest.fixture
def backend(monkeypatch):
    """A backend that needs no compiler; the graphs are inductor's."""

    def use(name):
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=name))

    torch.compiler.reset()
    counters.clear()
    backbone.compiled.cache_clear()
    yield use
    backbone.compiled.cache_clear()


def make(name, **arguments):
    torch.manual_seed(0)
    side = 32 if "patch_size" in MODELS[name] else 64
    return SMMixModule(
        num_classes=10,
        image_size=(side, side),
        batch_size=4,
        mixer=SMMix(switch_prob=1),
        backbone=name,
        backbone_args=MODELS[name],
        **arguments,
    ).train()


def batch(module):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, *module.hparams["image_size"], generator=generator)
    return images, soft_labels(torch.arange(4), 10, 0.1)


def losses_and_gradients(module, side):
    mixed = module.mixer.mix_regions(
        *batch(module), module.backbone, side, np.random.default_rng(0)
    )
    losses = module.criterion.terms(mixed)
    module.zero_grad()
    sum(losses.values()).backward()
    return {name: loss.detach() for name, loss in losses.items()}, {
        name: parameter.grad.clone() for name, parameter in module.named_parameters()
    }


def same_step(name):
    module = make(name, compile=True)
    torch.testing.assert_close(
        losses_and_gradients(module, 1), losses_and_gradients(make(name), 1), rtol=1e-4, atol=1e-5
    )
    return module


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_compiled_step_is_the_same_step(name, backend):
    backend("aot_eager")
    same_step(name)
    assert counters["stats"]["unique_graphs"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_step_compiled_by_inductor_is_the_same_step(name, backend):
    same_step(name)


@pytest.mark.parametrize(
    ("name", "readout"),
    [
        pytest.param("deit_tiny_patch16_224", "similarity", marks=pytest.mark.slow),
        *(pytest.param(*model.values, "tokens", marks=model.marks) for model in SOME),
    ],
)
def test_one_graph_per_pass_and_no_recompilation_for_another_region(name, readout, backend):
    backend("aot_eager")
    module = make(name, compile=True, guide=backbone.GuideConfig(readout=readout))
    rows = module.backbone.grid[0]
    # the training pass, and the guide pass if it does not record the attention of a complete pass
    graphs = 2 if readout == "similarity" or find_short_pass(module.backbone.model) else 1
    for side in range(1, max(rows, 2)):
        losses_and_gradients(module, side)
        assert counters["stats"]["unique_graphs"] == graphs
    images, labels = batch(module)
    module.criterion.terms(Mixup()(images, labels, module.backbone, np.random.default_rng(0)))
    assert counters["stats"]["unique_graphs"] == graphs
    assert not counters["graph_break"]


def test_another_batch_size_leaves_the_graphs_of_the_training_batch_static(backend):
    """Such as the pairs of `MixedImages`, and the last batch of a validation."""
    ran = []

    def recorded(graph, inputs):
        sizes = {type(one) for one in inputs} & {int, torch.SymInt}

        def run(*values):
            ran.append("dynamic" if sizes else "static")
            return graph(*values)

        return run

    backend(recorded)
    module = make("deit_tiny_patch16_224", compile=True)
    images, _ = batch(module)
    for count in (4, 2, 4, 3, 4):
        module.backbone.guide(images[:count])
        module.backbone.features(images[:count])
    assert ran == 10 * ["static"]


def test_compiled_module_keeps_its_weights_names_and_can_be_copied(backend):
    backend("eager")
    plain, module = make("deit_tiny_patch16_224"), make("deit_tiny_patch16_224", compile=True)
    losses_and_gradients(module, 1)
    assert module.state_dict().keys() == plain.state_dict().keys()
    copy = deepcopy(module)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.zero_()
    images, _ = batch(module)
    assert not copy.backbone.guide(images).logits.any()  # the copy uses its own weights
    assert module.backbone.guide(images).logits.any()
