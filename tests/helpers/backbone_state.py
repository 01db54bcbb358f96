"""State of a backbone that a guide pass must not change."""

import torch

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def state(backbone):
    """Return everything that the guide pass could change."""
    return (
        [(name, module.training) for name, module in backbone.named_modules()],
        [(name, getattr(module, "fused_attn", None)) for name, module in backbone.named_modules()],
        [len(module._forward_pre_hooks) for module in backbone.modules()],
        [(name, value.clone()) for name, value in backbone.state_dict().items()],
        torch.get_rng_state(),
    )


def same(before, after):
    modes, fused, hooks, weights, rng = before
    assert (modes, fused, hooks) == after[:3]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(weights, after[3], strict=True))
    assert torch.equal(rng, after[4])
