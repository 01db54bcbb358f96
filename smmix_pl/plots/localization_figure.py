"""Figure of images, their objects, and the maps that should find them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from smmix_pl.data.objects import VOID
from smmix_pl.plots.style import COLORS, SMALL, paper_style

if TYPE_CHECKING:
    from torch import Tensor

TRUE, FOUND = COLORS[5], COLORS[1]
"""Colors of the annotated and of the predicted boxes: sky blue and vermilion."""
TITLES = {
    "class": "Class attention",
    "tokens": "Token attention",
    "similarity": "Similarity",
    "rollout": "Attention rollout",
}


class LocalizedObject(NamedTuple):
    """Content of one row of the localization figure.

    Attributes:
        image: `(3, H, W)` in [0, 1].
        boxes: True boxes in pixels, `(n, 4)`.
        mask: Class of each pixel, `(H, W)`, or None.
        maps: Map over the tokens of each readout, `(G_h, G_w)`.
        found: Box that each readout predicts, in pixels, `(4,)`.
    """

    image: Tensor
    boxes: Tensor
    mask: Tensor | None
    maps: Mapping[Any, Tensor]
    found: Mapping[Any, Tensor]


@paper_style
def localization_figure(objects: Sequence[LocalizedObject]) -> Figure:
    """Plot one row per image: the image with its objects, then each map over the image."""
    columns = 1 + len(objects[0].maps)
    ratio = objects[0].image.shape[1] / objects[0].image.shape[2]
    size = (1.7 * columns, 1.72 * ratio * len(objects) + 0.7)
    layout = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
    figure = Figure(figsize=size, layout=layout)
    grid = figure.subplots(len(objects), columns, squeeze=False)
    for row, one in zip(grid, objects, strict=True):
        _draw_image(row[0], one)
        _draw_objects(row[0], one)
        for axes, (readout, found) in zip(row[1:], one.maps.items(), strict=True):
            _draw_image(axes, one, gray=True)
            height, width = one.image.shape[1:]
            values, extent = found.numpy(), (0, width, height, 0)
            axes.imshow(values, "inferno", extent=extent, interpolation="bilinear", alpha=0.6)
            _draw_objects(axes, one)
            _draw_box(axes, one.found[readout].tolist(), FOUND)
    for axes, title in zip(grid[0], ["Image", *objects[0].maps], strict=True):
        axes.set_title(TITLES.get(title, title), size=SMALL + 1, weight="normal")
    lines = "Blue: annotated objects. Orange: predicted box. Brighter: higher value of the map."
    figure.suptitle(lines, size=SMALL, weight="normal")
    return figure


def _draw_image(axes: Axes, one: LocalizedObject, gray: bool = False) -> None:
    height, width = one.image.shape[1:]
    image = one.image.mean(dim=0, keepdim=True).expand(3, -1, -1) if gray else one.image
    axes.imshow(image.permute(1, 2, 0).numpy(), extent=(0, width, height, 0))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()


def _draw_objects(axes: Axes, one: LocalizedObject) -> None:
    """Outline the objects: their boxes or, without boxes, the mask."""
    for box in one.boxes.tolist():
        _draw_box(axes, box, TRUE)
    if not len(one.boxes) and one.mask is not None:
        inside = ((one.mask > 0) & (one.mask != VOID)).float().numpy()
        axes.contour(inside, levels=[0.5], colors=["white"], linewidths=2)
        axes.contour(inside, levels=[0.5], colors=[TRUE], linewidths=1.2)


def _draw_box(axes: Axes, box: Sequence[float], color: str) -> None:
    left, top, right, bottom = box
    size = (right - left, bottom - top)
    drawn = Rectangle((left, top), *size, fill=False, color=color, linewidth=1.2)
    drawn.set_path_effects([withStroke(linewidth=2.2, foreground="white")])
    axes.add_patch(drawn)
