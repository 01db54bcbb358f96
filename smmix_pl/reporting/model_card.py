"""The model card of an exported model, in the format of the Hugging Face Hub."""

import json
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from smmix_pl.errors import InputError
from smmix_pl.models.weights import open_checkpoint, settings_in
from smmix_pl.reporting.metric_names import metric_name, metric_value, shown_metrics
from smmix_pl.runs.checkpoint_checks import provenance
from smmix_pl.runs.export_weights import export
from smmix_pl.runs.results import read_results
from smmix_pl.runs.run_files import write_atomic

CARD = """---
{header}
---
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

## Training

Settings of the model and of its training, as `smmix fit` takes them:

```yaml
{settings}```
"""
NOT_TESTED = "Not tested: its run has no `results.json` for this checkpoint."
SHOWN_SETTINGS = ("backbone", "backbone_args", "mixer", "token_head", "guide", "losses", "optim")


def export_with_card(
    checkpoint: Path,
    folder: Path,
    crop_pct: float | None = None,
    repo: str | None = None,
    license: str | None = None,
) -> str:
    """Write a folder in the format of timm's hub, with its model card.

    Args:
        checkpoint: Checkpoint in the folder of its run.
        folder: Folder to write, without a suffix.
        crop_pct: As in `export`.
        repo: Repository of the hub that the card loads the model from. None loads the folder.
        license: License of the weights, as an identifier of the hub.

    Returns:
        Python code that loads the result.

    Raises:
        InputError: As in `export`.
    """
    code = export(checkpoint, folder, crop_pct)
    if repo is not None:
        code = code.replace(f"local-dir:{folder}", f"hf-hub:{repo}")
    write_atomic(folder / "README.md", model_card(checkpoint, code, license).encode())
    return code


def model_card(checkpoint: Path, code: str, license: str | None = None) -> str:
    """Return the card of a checkpoint's model as Markdown, with the results of its test.

    Args:
        checkpoint: Checkpoint in the folder of its run.
        code: Python code that loads the exported model.
        license: License of the weights, as an identifier of the hub.

    Raises:
        InputError: The checkpoint is not one of `SMMixModule`.
    """
    content = open_checkpoint(checkpoint)
    settings = settings_in(content, checkpoint)
    tested = _results(checkpoint)
    header = ModelCardData(
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["image-classification", "timm", "smmix"],
        license=license,
        model_name=settings["backbone"],
        eval_results=_hub_results(tested) if tested else None,
    )
    height, width = settings["image_size"]
    shown = {name: settings[name] for name in SHOWN_SETTINGS if name in settings}
    plain = json.loads(json.dumps(shown, default=str))  # tuples become lists
    return CARD.format(
        header=header.to_yaml(),
        title=settings["backbone"],
        description=_description(content, settings, tested),
        code=code.replace("timm.create_model", "model = timm.create_model", 1),
        height=height,
        width=width,
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        results=_table(tested) if tested else NOT_TESTED,
        settings=yaml.safe_dump({"model": plain}, sort_keys=False),
    )


def _description(
    content: dict[str, Any], settings: dict[str, Any], tested: dict[str, Any] | None
) -> str:
    trained = provenance(content)
    how = f"Trained with {trained['mixer']}" if "mixer" in trained else "Trained"
    parts = [
        f"`{settings['backbone']}` for {settings['num_classes']} classes. {how}",
        *([f"on {tested['run']['data']}"] if tested else []),
        *([f"(seed {trained['seed']})"] if "seed" in trained else []),
        "by [SMMix-PL](https://arxiv.org/abs/2212.12977).",
    ]
    if isinstance(content.get("averaged"), list):
        parts.append(f"Its weights are the mean of {len(content['averaged'])} checkpoints.")
    if isinstance(content.get("temperature"), float):
        parts.append(f"Its logits are divided by {content['temperature']:.3f} (calibration).")
    return " ".join(parts)


def _results(checkpoint: Path) -> dict[str, Any] | None:
    """Return the results of the checkpoint's run, if they are those of this checkpoint."""
    try:
        results = dict(read_results(checkpoint.absolute().parent.parent))
    except InputError:
        return None
    tested = str(results["run"].get("checkpoint"))
    return results if Path(tested).name == checkpoint.name else None


def _hub_results(results: dict[str, Any]) -> list[EvalResult]:
    """Return the accuracies, which the hub lists beside the card."""
    data = results["run"]["data"]
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type=data.lower(),
            dataset_name=data,
            dataset_split="test",
            metric_type="accuracy",
            metric_name=metric_name(key),
            metric_value=results["metrics"][key]["value"],
        )
        for key in ("top1", "top5")
        if key in results["metrics"]
    ]


def _table(results: dict[str, Any]) -> str:
    measured = results["metrics"]
    rows = [
        f"| {metric_name(key)} | {metric_value(key, measured[key]['value'])} "
        f"| {measured[key]['images']:,} |"
        for key in shown_metrics(measured)
    ]
    return "\n".join(["| metric | value | images |", "|---|---|---|", *rows])
