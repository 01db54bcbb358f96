"""W&B dashboards as code: a workspace for a project, and a report that compares its mixers.

    python -m smmix_pl.reporting.wandb_dashboard ENTITY/PROJECT
    python -m smmix_pl.reporting.wandb_dashboard ENTITY/PROJECT --dry_run dashboard.json    # no network, no login

Panels show keys of `smmix_pl.reporting.logged_keys`, and what W&B measures of the machine. The report goes by
W&B's groups, which `smmix_pl.runs.wandb_logger` names after model, mixer and data set, so that its lines and
bars are means over seeds.
"""

import argparse
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import wandb
from pydantic import ValidationError

from smmix_pl.cli.input_errors import WordsParser, report_input_errors
from smmix_pl.errors import InputError

STEP = "trainer/global_step"


class Section(NamedTuple):
    """The question that a part of a dashboard answers, how to read it, and the keys that do."""

    question: str
    reading: str
    keys: tuple[str, ...]


MACHINE = (
    "system/cpu",
    "system/memory_percent",
    "system/gpu.0.gpu",
    "system/gpu.0.memoryAllocated",
)
"""What W&B measures by itself, over time and not over steps."""
SECTIONS = {
    "Training": Section(
        "Does it learn?",
        "Losses of different mixers do not compare, since their labels differ: compare validation. "
        "Fine-grained and consistency losses are SMMix's; of other mixers there are none.",
        (
            *("train/loss", "train/loss_classification", "train/loss_fine_grained_target"),
            *("train/loss_fine_grained_source", "train/loss_consistency"),
            *("lr", "train/grad_norm", "train/weight_norm"),
        ),
    ),
    "Mixing": Section(
        "What does the mixer do, and where does the model look?",
        "The pictures show the attention and the windows that SMMix chooses by it, for other "
        "mixers too; lam is the share of the target image that the mixer of the run leaves.",
        ("train/mixing", "train/branch", "train/lam", "train/region_side"),
    ),
    "Validation": Section(
        "How good is it, and is the average of the weights better than the weights?",
        "Where the weights are averaged (EMA), val is the average and val_weights the weights.",
        (
            *("val/top1", "val/top5", "val/loss"),
            *("val_weights/top1", "val_weights/top5", "val_weights/loss"),
        ),
    ),
    "Calibration": Section(
        "Does it know when it is wrong?",
        "ECE is the distance between confidence and accuracy: 0 is best, and the diagram tells "
        "whether a model trusts itself too much or too little. NLL and Brier score also fall as "
        "accuracy rises.",
        (
            *("val/ece", "val_weights/ece", "test/ece", "test/nll", "test/brier"),
            *("test/reliability", "test/worst_calibrated"),
        ),
    ),
    "Robustness": Section(
        "How does it take occlusion?",
        "Accuracy with 25, 50, 75% of the patches dropped at random, and the mean over 0 to 75%.",
        (
            *("test/occlusion_25", "test/occlusion_50", "test/occlusion_75"),
            *("test/occlusion_auc_75", "test/occlusion"),
        ),
    ),
    "Errors": Section(
        "What does it confuse?",
        "Compare the worst class with the mean of all, then see which classes are taken for "
        "which, and the errors that the model was surest of.",
        ("test/top1", "test/worst_class_top1", "test/confusion", "test/errors"),
    ),
    "System": Section(
        "What does it cost?",
        "The speed, the seconds of a step by what they are spent on, and how busy the machine is: "
        "where time/data is much of a step, the data and not the mixer is what to make faster.",
        (
            *("images_per_second", "time/data", "time/guide", "time/mix", "time/train"),
            *("memory/peak_gib", *MACHINE),
        ),
    ),
}
PICTURES = (
    *("train/mixing", "test/reliability", "test/worst_calibrated", "test/occlusion"),
    *("test/confusion", "test/errors"),
)
COMPARED = ("test/top1", "test/ece", "test/occlusion_50", "images_per_second")
"""One bar a group of runs."""
SHOWN = 60
"""Runs or groups in a panel: every mixer over some seeds, where W&B would show 10."""
OVER_SEEDS = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}


def main(words: Sequence[str] | None = None) -> None:
    """Define, and save at W&B unless it is a dry run."""
    parser = WordsParser(prog="python -m smmix_pl.reporting.wandb_dashboard", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("project", metavar="ENTITY/PROJECT", help="as in the project's address")
    parser.add_argument("--dry_run", type=Path, metavar="FILE", help="write the definition as JSON")
    with report_input_errors():
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
        workspaces.Section(name=name, panels=[panel(key) for key in section.keys], is_open=True)
        for name, section in SECTIONS.items()
    ]
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name="smmix_pl",
        sections=sections,
        settings=workspaces.WorkspaceSettings(max_runs=SHOWN),
        runset_settings=workspaces.RunsetSettings(
            pinned_columns=[f"summary:{key}" for key in COMPARED]
        ),
    )


def report(entity: str, project: str) -> Any:
    """The report: bars that compare, then a section a question."""
    _, reports = library()

    def grid(panels: list[Any]) -> Any:
        # Of the report's own project: naming it would have the library ask W&B for it
        runs = reports.Runset(name="by model, mixer and data", groupby=["Group"])
        return reports.PanelGrid(runsets=[runs], panels=panels)

    blocks = [
        reports.TableOfContents(),
        reports.H1("Mixers compared"),
        reports.P(
            "Which mixer? A group is the runs of one model, mixer and data set: bars and lines are "
            "the mean over its runs, with their deviation. Give an ablation a group of its own."
        ),
        grid([bar(key) for key in COMPARED]),
    ]
    for name, section in SECTIONS.items():
        text = reports.P(f"{section.question} {section.reading}")
        blocks += [reports.H2(name), text, grid([panel(key) for key in section.keys])]
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
        return bar(key)
    return reports.LinePlot(
        title=key,
        x="RelativeTime(Process)" if key in MACHINE else STEP,
        y=[key],
        smoothing_factor=0.6 if key.startswith("train/loss") else 0.0,
        max_runs_to_show=SHOWN,
        **OVER_SEEDS,
    )


def bar(key: str) -> Any:
    """A bar a run, or a group of runs where they are grouped."""
    _, reports = library()
    return reports.BarPlot(
        title=key, metrics=[key], max_runs_to_show=SHOWN, max_bars_to_show=SHOWN, **OVER_SEEDS
    )


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
