"""Export to ONNX with torch's exporter, verified with onnxruntime."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnxruntime
import onnxscript  # noqa: F401 - torch's exporter fails late without it
import torch
from torch import Tensor, nn

TOLERANCE = 1e-4
"""Maximum difference of logits: absolute up to 1, relative above."""


def write_onnx(
    model: nn.Module, input_size: Sequence[int], metadata: Mapping[str, str], file: Path
) -> float:
    """Write an ONNX program from images `(B, C, H, W)` to logits `(B, K)`, for any batch size B.

    Args:
        model: Model in eval mode.
        input_size: Size of one image, (C, H, W).
        metadata: Text stored in the file.
        file: Path of the file.

    Returns:
        Largest difference between its logits and torch's.

    Raises:
        RuntimeError: The logits differ by more than `TOLERANCE`.
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
        raise RuntimeError(f"{file}: torch returned no ONNX program")
    program.model.metadata_props.update(metadata)
    program.save(file)
    return _difference(model, file, images)


def _difference(model: nn.Module, file: Path, images: Tensor) -> float:
    """Return the largest difference of logits, on another batch size than during export."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    logits = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    with torch.no_grad():
        expected = model(images)
    worst = float(((logits - expected).abs() / expected.abs().clamp(min=1)).max())
    if not worst <= TOLERANCE:  # also rejects NaN
        raise RuntimeError(f"{file}: logits differ from torch's by {worst:.1e}")
    return worst
