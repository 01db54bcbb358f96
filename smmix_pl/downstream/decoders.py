"""Segmentation decoders, with the layers and defaults of mmsegmentation.

Each takes maps `(B, C_i, H / stride, W / stride)` at strides 4, 8, 16, and 32 and returns features
`(B, width, H / 4, W / 4)`.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FeaturePyramidNetwork

POOLED = (1, 2, 3, 6)
"""Sides of the pooled maps of the pyramid pooling module."""


class SemanticFPN(nn.Module):
    """Semantic FPN (Kirillov et al., 2019): a feature pyramid whose levels are summed.

    Args:
        channels: C_i of the four maps.
        width: Channels of the features.
        pyramid_width: Channels of the feature pyramid.
    """

    def __init__(self, channels: list[int], width: int = 128, pyramid_width: int = 256) -> None:
        super().__init__()
        self.width = width
        self.pyramid = FeaturePyramidNetwork(channels, pyramid_width)
        self.branches = nn.ModuleList(
            _upsampling(pyramid_width, width, doublings) for doublings in range(len(channels))
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Return the features."""
        named = OrderedDict((str(level), one) for level, one in enumerate(maps))
        levels = self.pyramid(named).values()
        features = [branch(one) for branch, one in zip(self.branches, levels, strict=True)]
        return torch.stack(features).sum(dim=0)


class UPerNet(nn.Module):
    """UPerNet (Xiao et al., 2018): pyramid pooling, a top-down path, and a fusion of all levels.

    Args:
        channels: C_i of the four maps.
        width: Channels of all layers.
    """

    def __init__(self, channels: list[int], width: int = 512) -> None:
        super().__init__()
        self.width = width
        *lower, top = channels
        self.pooled = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), conv(top, width, 1)) for side in POOLED
        )
        self.bottleneck = conv(top + len(POOLED) * width, width, 3)
        self.laterals = nn.ModuleList(conv(one, width, 1) for one in lower)
        self.outputs = nn.ModuleList(conv(width, width, 3) for _ in lower)
        self.fusion = conv(len(channels) * width, width, 3)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Return the features."""
        *lower, top = maps
        pooled = [resized(pool(top), top) for pool in self.pooled]
        levels = [self.bottleneck(torch.cat([top, *pooled], dim=1))]
        for lateral, one in zip(reversed(self.laterals), reversed(lower), strict=True):
            own = lateral(one)
            levels.insert(0, own + resized(levels[0], own))
        smoothed = [output(one) for output, one in zip(self.outputs, levels[:-1], strict=True)]
        levels = [*smoothed, levels[-1]]
        return self.fusion(torch.cat([resized(one, levels[0]) for one in levels], dim=1))


def conv(channels: int, width: int, side: int) -> nn.Sequential:
    """Return convolution, batch norm, and ReLU, initialized as in mmsegmentation."""
    layer = nn.Conv2d(channels, width, side, padding=side // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(layer, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def classifier(width: int, classes: int) -> nn.Sequential:
    """Return dropout and the convolution that gives class logits."""
    layer = nn.Conv2d(width, classes, 1)
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return nn.Sequential(nn.Dropout2d(0.1), layer)


def resized(one: Tensor, like: Tensor) -> Tensor:
    """Resize a map to the size of another one."""
    return F.interpolate(one, like.shape[-2:], mode="bilinear")


def _upsampling(channels: int, width: int, doublings: int) -> nn.Sequential:
    """Return convolutions, each followed by an upsampling by 2, or one without any."""
    layers: list[nn.Module] = []
    for index in range(max(1, doublings)):
        layers.append(conv(width if index else channels, width, 3))
        if doublings:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear"))
    return nn.Sequential(*layers)
