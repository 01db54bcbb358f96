"""Freezing weights of a backbone by depth or by name."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from smmix_pl.checks import in_range
from smmix_pl.errors import InputError
from smmix_pl.models.backbone import Backbone


def freeze(backbone: Backbone, frozen: int | Sequence[str]) -> None:
    """Exclude weights from training. They have no gradient and are not given to the optimizer.

    Args:
        backbone: The model.
        frozen: Number of layers from the input, of which the first is the stem (timm's groups, as
            for `optim.layer_decay`), or shell patterns of parameter names, such as
            `model.patch_embed.*`.

    Raises:
        InputError: A pattern matches no weight, or nothing is left to train.
    """
    weights = dict(backbone.named_parameters())
    if isinstance(frozen, int):
        layer = backbone.group_matcher()
        last = max(map(layer, weights))
        in_range("model.frozen", frozen, 0, last, f"The heads are layer {last}")
        chosen = {name for name in weights if layer(name) < frozen}
    else:
        chosen = set[str]()
        for pattern in frozen:
            found = {name for name in weights if fnmatchcase(name, pattern)}
            if not found:
                raise InputError(
                    f"model.frozen={pattern}: matches no weight. Names are such as "
                    f"{next(iter(weights))}."
                )
            chosen |= found
    if len(chosen) == len(weights):
        raise InputError(f"model.frozen={frozen}: freezes all weights. Freeze fewer.")
    for name in chosen:
        weights[name].requires_grad = False
