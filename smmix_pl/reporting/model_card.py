"""The model card of an exported model, in the format of the Hugging Face Hub."""

from pathlib import Path
from typing import Any

import yaml

from smmix_pl.errors import InputError
from smmix_pl.models.weights import open_checkpoint, settings_in
from smmix_pl.reporting.metric_names import metric_name, metric_value, shown_metrics
from smmix_pl.runs.checkpoint_checks import provenance
from smmix_pl.runs.results import read_results

CARD = """---
{header}---
# {title}

{description}

## Use

```python
import timm
{code}
```

The model expects images of {height} x {width} pixels, normalized with mean {mean} and standard
deviation {std}; `timm.data.resolve_model_data_config(model)` returns the complete preparation.

## Results

{results}
"""
NOT_TESTED = "Not tested: its run has no `results.json` for this checkpoint."


def model_card(checkpoint: Path, code: str) -> str:
    """Return the card of a checkpoint's model as Markdown, with the results of its test.

    Args:
        checkpoint: Checkpoint in the folder of its run.
        code: Python code that loads the exported model.

    Raises:
        InputError: The checkpoint is not one of `SMMixModule`.
    """
    content = open_checkpoint(checkpoint)
    settings = settings_in(content, checkpoint)
    trained = provenance(content)
    tested = _results(checkpoint)
    run = tested["run"] if tested else {}
    how = f"Trained with {trained['mixer']}" if "mixer" in trained else "Trained"
    description = [
        f"`{settings['backbone']}` for {settings['num_classes']} classes. {how}",
        *([f"on {run['data']}"] if run else []),
        *([f"(seed {trained['seed']})"] if "seed" in trained else []),
        "by [SMMix-PL](https://arxiv.org/abs/2212.12977).",
    ]
    if isinstance(content.get("temperature"), float):
        description.append(f"Its logits are divided by {content['temperature']:.3f} (calibration).")
    height, width = settings["image_size"]
    tags = ["image-classification", "timm"]
    return CARD.format(
        header=yaml.safe_dump({"library_name": "timm", "tags": tags}, sort_keys=False),
        title=settings["backbone"],
        description=" ".join(description),
        code=code.replace("timm.create_model", "model = timm.create_model", 1),
        height=height,
        width=width,
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        results=_table(tested) if tested else NOT_TESTED,
    )


def _results(checkpoint: Path) -> dict[str, Any] | None:
    """Return the results of the checkpoint's run, if they are those of this checkpoint."""
    try:
        results = dict(read_results(checkpoint.absolute().parent.parent))
    except InputError:
        return None
    tested = str(results["run"].get("checkpoint"))
    return results if Path(tested).name == checkpoint.name else None


def _table(results: dict[str, Any]) -> str:
    measured = results["metrics"]
    rows = [
        f"| {metric_name(key)} | {metric_value(key, measured[key]['value'])} "
        f"| {measured[key]['images']:,} |"
        for key in shown_metrics(measured)
    ]
    return "\n".join(["| metric | value | images |", "|---|---|---|", *rows])
