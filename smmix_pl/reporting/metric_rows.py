"""What a row of the table of metrics is."""

import re
from dataclasses import dataclass
from typing import Literal

Unit = Literal["fraction", "nats", "seconds", "GiB", "images/s", "tokens", ""]
Stage = Literal["val", "val_weights", "test"]
Source = Literal[
    "",
    "evaluation suite",
    "with/guide_quality.yaml",
    "with/localization.yaml",
    "with/knn.yaml",
    "with/autoattack.yaml",
    "with/tta.yaml",
    "linear probe",
    "segmentation",
    "detection",
    "multi-label",
]

EVAL: tuple[Stage, ...] = ("val", "val_weights", "test")
TEST: tuple[Stage, ...] = ("test",)
VAL_AND_TEST: tuple[Stage, ...] = ("val", "test")
SHOWN = {"occlusion_{ratio}": ("25", "50", "75"), "occlusion_auc_{ratio}": ("75",)}
"""Values of placeholders that the dashboard shows."""


@dataclass(frozen=True)
class MetricSpec:
    """One logged number, or one family of them.

    Attributes:
        key: Logged key, without the stage if there are stages.
        name: Display name; placeholders of the key may occur in it.
        unit: A fraction is logged in [0, 1] and displayed in percent.
        better: Direction of improvement, or empty if there is none.
        meaning: What it is, in one line.
        panel: Panel of the dashboard and section of the report that shows it, or empty.
        stages: Prefixes under which it is logged: `val` and `test`, and `val_weights` for the
            trained weights beside their average.
        source: What logs it, or empty if every classification run does. The evaluation suite is
            `with/eval.yaml`, or a corrupted dataset.
    """

    key: str
    name: str
    unit: Unit
    better: Literal["higher", "lower", ""]
    meaning: str
    panel: str
    stages: tuple[Stage, ...]
    source: Source

    @property
    def keys(self) -> list[str]:
        """Keys as logged, with their stages and still with placeholders."""
        return [f"{stage}/{self.key}" for stage in self.stages] or [self.key]

    @property
    def panel_keys(self) -> list[str]:
        """Keys that the dashboard shows."""
        if "{" not in self.key:
            return self.keys
        values = SHOWN.get(self.key, ())
        return [re.sub(r"\{\w+\}", value, key) for key in self.keys for value in values]


Row = tuple[str, str, Unit, Literal["higher", "lower", ""], str]


def specs(panel: str, stages: tuple[Stage, ...], source: Source, *rows: Row) -> list[MetricSpec]:
    """Return rows that share a panel, stages, and a source."""
    return [MetricSpec(*row, panel, stages, source) for row in rows]
