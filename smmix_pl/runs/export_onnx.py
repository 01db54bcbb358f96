"""A model as ONNX, through torch's exporter, held against torch by onnxruntime."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnxruntime
import onnxscript  # noqa: F401 - torch's exporter fails late without it
import torch
from torch import Tensor, nn

TOLERANCE = 1e-4
"""Of logits, relative where they are above 1."""


def write_onnx(
    model: nn.Module, input_size: Sequence[int], metadata: Mapping[str, str], file: Path
) -> float:
    """Write ONNX from images ``(B, C, H, W)`` to logits ``(B, K)``, for any B.

    Args:
        model: In eval mode.
        input_size: (C, H, W).
        metadata: Kept in the file.
        file: Where to.

    Returns:
        The largest difference of its logits from torch's.

    Raises:
        RuntimeError: They differ by more than `TOLERANCE`.
    """
    for module in model.modules():  # the exporter fails on the fused kernel of BEiT and Twins
        if getattr(module, "fused_attn", False):
            setattr(module, "fused_attn", False)  # noqa: B010 - a Module's attribute has no type
    images = torch.randn(3, *input_size, generator=torch.Generator().manual_seed(0))
    program = torch.onnx.export(
        model,
        (images[:2],),
        dynamo=True,
        verbose=False,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    if program is None:
        raise RuntimeError(f"torch made no ONNX program for {file}")
    program.model.metadata_props.update(metadata)
    program.save(file)
    return _difference(model, file, images)


def _difference(model: nn.Module, file: Path, images: Tensor) -> float:
    """The largest difference of logits, on a batch of another size than at export."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    logits = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    with torch.no_grad():
        expected = model(images)
    worst = float(((logits - expected).abs() / expected.abs().clamp(min=1)).max())
    if not worst <= TOLERANCE:  # nor NaN
        raise RuntimeError(f"the logits of {file} differ from torch's by {worst:.1e}")
    return worst
