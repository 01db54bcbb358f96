"""W&B dashboards as code: a workspace for a project, and a report that compares its mixers.

    python -m smmix_pl.dashboard ENTITY/PROJECT
    python -m smmix_pl.dashboard ENTITY/PROJECT --dry_run dashboard.json    # no network, no login

Every panel shows keys of `smmix_pl.logged`. Runs are grouped as `smmix_pl.loggers` names them: by
model, mixer and data set, so that lines and bars are means over seeds.
"""

import argparse
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wandb
from pydantic import ValidationError

from smmix_pl.commands import WordsParser, one_sentence
from smmix_pl.errors import InputError

STEP = "trainer/global_step"
SECTIONS = {
    "Training": (
        "Does it learn?",
        *("train/loss", "train/loss_classification", "train/loss_fine_grained_target"),
        *("train/loss_fine_grained_source", "train/loss_consistency"),
        *("lr", "train/grad_norm", "train/weight_norm"),
    ),
    "Mixing": (
        "What does the mixer do, and where does the model look?",
        *("train/mixing", "train/branch", "train/lam", "train/region_side"),
    ),
    "Validation": (
        "How good is it, and is the average of the weights better than the weights?",
        *("val/top1", "val/top5", "val/loss"),
        *("val_weights/top1", "val_weights/top5", "val_weights/loss"),
    ),
    "Calibration": (
        "Does it know when it is wrong?",
        *("val/ece", "val_weights/ece", "test/ece", "test/reliability", "test/worst_calibrated"),
    ),
    "Robustness": (
        "How does it take occlusion?",
        *("test/occlusion_50", "test/occlusion_auc_75", "test/occlusion"),
    ),
    "Errors": (
        "What does it confuse?",
        *("test/top1", "test/worst_class_top1", "test/confusion", "test/errors"),
    ),
    "System": (
        "What does it cost?",
        *("images_per_second", "time/data", "time/motivate", "time/mix", "time/train"),
        *("memory/peak_gib",),
    ),
}
"""The question that a section answers, and the keys that do."""
PICTURES = (
    *("train/mixing", "test/reliability", "test/worst_calibrated", "test/occlusion"),
    *("test/confusion", "test/errors"),
)
COMPARED = ("test/top1", "test/ece", "test/occlusion_50", "images_per_second")
"""One bar a group of runs."""


def main(words: Sequence[str] | None = None) -> None:
    """Define, and save at W&B unless it is a dry run."""
    parser = WordsParser(prog="python -m smmix_pl.dashboard", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("project", metavar="ENTITY/PROJECT", help="as in the project's address")
    parser.add_argument("--dry_run", type=Path, metavar="FILE", help="write the definition as JSON")
    with one_sentence():
        options = parser.parse_args(words)
        entity, project = split(options.project)
        made = {"workspace": workspace(entity, project), "report": report(entity, project)}
        if options.dry_run is not None:
            options.dry_run.write_text(
                json.dumps({k: as_json(v) for k, v in made.items()}, indent=1)
            )
            print(options.dry_run)
            return
        check_online()
        for what, one in made.items():
            print(f"{what}: {save(what, one)}", flush=True)


def split(path: str) -> tuple[str, str]:
    """Entity and project of ``entity/project``; a project's name may have spaces.

    Raises:
        InputError: It is not of that form.
    """
    found = re.fullmatch(r"([\w.-]+)/([^\s/\\#?%:](?:[^/\\#?%:]*[^\s/\\#?%:])?)", path)
    if found is None:
        raise InputError(f"{path!r} names no W&B project; give ENTITY/PROJECT, such as me/smmix_pl")
    return found[1], found[2]


def workspace(entity: str, project: str) -> Any:
    """The saved view: a section a question, a panel a key."""
    workspaces, _ = library()
    sections = [
        workspaces.Section(name=name, panels=[panel(key) for key in keys], is_open=True)
        for name, (_, *keys) in SECTIONS.items()
    ]
    return workspaces.Workspace(entity=entity, project=project, name="smmix_pl", sections=sections)


def report(entity: str, project: str) -> Any:
    """The report: bars that compare, then a section a question."""
    _, reports = library()

    def grid(panels: list[Any]) -> Any:
        # Of the report's own project: naming it would have the library ask W&B for it
        runs = reports.Runset(name="by model, mixer and data", groupby=["Group"])
        return reports.PanelGrid(runsets=[runs], panels=panels)

    bars = [
        reports.BarPlot(
            title=key, metrics=[key], groupby_aggfunc="mean", groupby_rangefunc="stddev"
        )
        for key in COMPARED
    ]
    blocks = [
        reports.H1("Mixers compared"),
        reports.P(
            "One bar a group of runs that differ in their seed: mean and deviation over seeds."
        ),
        grid(bars),
    ]
    for name, (question, *keys) in SECTIONS.items():
        blocks += [reports.H2(name), reports.P(question), grid([panel(key) for key in keys])]
    return reports.Report(
        entity=entity,
        project=project,
        title="smmix_pl: mixers compared",
        width="fluid",
        description="Which mixer, does it learn, where does it look, how calibrated, how robust.",
        blocks=blocks,
    )


def panel(key: str) -> Any:
    """A picture, a bar for a number of the test, or a line over steps."""
    _, reports = library()
    if key in PICTURES:
        return reports.MediaBrowser(title=key, media_keys=[key], num_columns=2)
    if key.startswith("test/"):
        return reports.BarPlot(title=key, metrics=[key])
    smoothing = 0.6 if key.startswith("train/loss") else 0.0
    return reports.LinePlot(title=key, x=STEP, y=[key], smoothing_factor=smoothing)


def as_json(made: Any) -> Any:
    """What would be sent to W&B."""
    return json.loads(made._to_model().model_dump_json(by_alias=True))


def check_online() -> None:
    """See that W&B can be asked at all, before it is.

    Raises:
        InputError: Nobody is logged in, or W&B was told to stay offline.
    """
    known = logged_in()  # first, for it looks at W&B's settings
    mode = wandb.setup().settings.mode
    if mode not in ("online", "shared"):
        raise InputError(
            f"W&B's mode is {mode} here, and a dashboard is made online; set WANDB_MODE=online "
            "(--dry_run FILE needs no network)"
        )
    if not known:
        raise InputError(
            "W&B knows no account here; run `wandb login`, or set WANDB_API_KEY (--dry_run FILE "
            "needs none)"
        )


def logged_in() -> bool:
    """Whether W&B finds an account here; nobody is asked, and nothing is sent.

    Raises:
        InputError: W&B does not accept the key or a setting that it finds.
    """
    try:
        return bool(wandb.login(prompt=False, verify=False))
    except wandb.errors.AuthenticationError as error:
        raise InputError(
            f"W&B does not accept the key that it finds ({error}); set it anew, or unset it"
        ) from error
    except ValidationError as error:
        wrong = error.errors()[0]
        raise InputError(
            f"W&B does not accept WANDB_{str(wrong['loc'][0]).upper()}={wrong['input']} "
            f"({wrong['msg']}); set it anew, or unset it"
        ) from error


def save(what: str, made: Any) -> str:
    """Save at W&B, and give the address.

    Raises:
        InputError: W&B cannot be reached, or refuses.
    """
    try:
        made.save()
    except Exception as error:  # of several libraries for HTTP, GraphQL and W&B
        raise InputError(
            f"W&B did not take the {what} ({str(error)[:200]}); it has to be reachable, and to "
            "have such a project with a run in it, that this account may write to"
        ) from error
    return str(made.url)


def library() -> tuple[Any, Any]:
    """The modules for workspaces and for reports.

    Raises:
        InputError: They are not installed.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        import wandb_workspaces.reports.v2 as reports
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise InputError(
            "dashboards need wandb-workspaces; pip install 'smmix_pl[dashboard]'"
        ) from error
    return workspaces, reports


if __name__ == "__main__":
    main()
