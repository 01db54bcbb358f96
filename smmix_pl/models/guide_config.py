"""Settings of the guide pass."""

from dataclasses import dataclass
from typing import Literal, get_args

from timm.layers import to_2tuple

from smmix_pl.checks import in_range, one_of
from smmix_pl.errors import InputError
from smmix_pl.mixing.base import Readout
from smmix_pl.models.timm_model import ImageSize


@dataclass(frozen=True)
class GuideConfig:
    """Settings of the guide pass, in which the model looks at the unmixed images.

    The defaults are the paper's. `size` and `block` make the pass cheaper but no longer exact.

    Args:
        source: Model that guides: `self`, the model being trained, as in the paper, or `teacher`,
            the frozen `model.teacher`, whose logits are then the target of the consistency loss.
            Averaged weights guide by `EMA.as_guide`.
        readout: What guides: `tokens`, the attention of all image tokens in the last self-attention
            block, averaged over queries; `class`, the attention of the class token in the last
            block; or `similarity`, the cosine between each image token and the class token (the
            mean image token in models without one) after the final norm. Similarity keeps attention
            fused, and also guides models without an attention map over one token grid. `rollout` is
            the class token's attention through all blocks, for plain ViTs. `merged` is the
            attention to the class token in the last block of a plain ViT that merges similar
            tokens. `null` uses what the mixer defines: `class` for TransMix and MixPro, `rollout`
            for TLAlign, `merged` for MergeMix, else `tokens`.
        merge_ratio: Fraction of the image tokens that `merged` merges into others, in [0, 0.5].
        size: Image size of the pass in pixels, (height, width) or one number for both, best a
            multiple of the patch size. Attention is resized to the token grid of the training
            images. `null` uses the training size.
        block: Index of the block whose attention guides; later blocks are not run. For plain ViTs
            and for mixers that do not use the guide's logits. `null` uses the last block.
        precision: `training` runs the pass under the training autocast, `float32` outside of it, as
            the authors do.
        mode: `eval` as in the paper, or `train` with stochastic depth and dropout, as in OpenMixup.
    """

    source: Literal["self", "teacher"] = "self"
    readout: Readout | None = None
    merge_ratio: float = 0.25
    size: int | ImageSize | None = None
    block: int | None = None
    precision: Literal["training", "float32"] = "training"
    mode: Literal["eval", "train"] = "eval"

    def __post_init__(self) -> None:
        one_of("model.guide.source", self.source, ("self", "teacher"))
        if self.readout is not None:
            one_of("model.guide.readout", self.readout, get_args(Readout))
        if self.readout in ("similarity", "rollout", "merged") and self.block is not None:
            raise InputError(
                f"model.guide.block={self.block}: model.guide.readout={self.readout} needs all "
                "blocks. Remove one of the two options."
            )
        in_range("model.guide.merge_ratio", self.merge_ratio, 0, 0.5, "MergeMix uses 0.25 and 0.5")
        one_of("model.guide.precision", self.precision, ("training", "float32"))
        one_of("model.guide.mode", self.mode, ("eval", "train"))
        if self.readout == "merged" and self.mode == "train":
            raise InputError(
                "model.guide.mode=train: model.guide.readout=merged has no stochastic depth. Use "
                "eval, or another readout."
            )
        if self.size is not None and min(to_2tuple(self.size)) < 1:
            raise InputError(
                f"model.guide.size={self.size}: must be at least 1 pixel. Use null for the size of "
                "the training images."
            )
