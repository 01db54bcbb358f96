"""W&B dashboards as code: a workspace for a project, and a report that compares its mixers.

Panels show the keys of `metric_specs`, and what W&B measures on the machine. The report uses W&B's
groups, which `runs.wandb_logger` names after model, mixer, dataset, and changed settings, so that
its lines and bars are means over seeds.
"""

import json
import os
import re
from typing import Any

import wandb
from pydantic import ValidationError

from smmix_pl.errors import InputError
from smmix_pl.reporting.panels import PANELS, PICTURES, panel_keys, picture_keys

STEP = "trainer/global_step"


MACHINE = (
    "system/cpu",
    "system/memory_percent",
    "system/gpu.0.gpu",
    "system/gpu.0.memoryAllocated",
)
"""What W&B itself measures, over time instead of steps."""
COMPARED = ("test/top1", "test/ece", "test/occlusion_50", "images_per_second")
"""Metrics that the report compares by one bar per group of runs."""
SHOWN = 80
"""Runs or groups in a panel. W&B's default of 10 is too few for every mixer with several seeds."""
OVER_SEEDS = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}


def split_project(path: str) -> tuple[str, str]:
    """Return entity and project of `ENTITY/PROJECT`. Names of projects may have spaces.

    Raises:
        InputError: The path does not have that form.
    """
    found = re.fullmatch(r"([\w.-]+)/([^\s/\\#?%:](?:[^/\\#?%:]*[^\s/\\#?%:])?)", path)
    if found is None:
        raise InputError(f"{path!r}: not a W&B project. Pass ENTITY/PROJECT, such as me/smmix_pl.")
    return found[1], found[2]


def workspace(entity: str, project: str) -> Any:
    """Return the workspace: one section per panel of `PANELS`, one chart per key."""
    workspaces, _ = library()
    sections = [
        workspaces.Section(
            name=name, panels=[chart(key) for key in section_keys(name)], is_open=True
        )
        for name in PANELS
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
    """Return the report: bars that compare groups, then one section per panel of `PANELS`."""
    _, reports = library()

    def grid(panels: list[Any]) -> Any:
        # Without a project: naming one would make the library ask W&B for it
        runs = reports.Runset(name="by model, mixer, data, and settings", groupby=["Group"])
        return reports.PanelGrid(runsets=[runs], panels=panels)

    blocks = [
        reports.TableOfContents(),
        reports.H1("Mixers compared"),
        reports.P(
            "A group holds the runs of one model, mixer, dataset, and settings. Bars and lines are "
            "the mean over its seeds, with their standard deviation."
        ),
        grid([bar(key) for key in COMPARED]),
    ]
    for name, panel in PANELS.items():
        text = reports.P(f"{panel.question} {panel.reading}")
        blocks += [reports.H2(name), text, grid([chart(key) for key in section_keys(name)])]
    return reports.Report(
        entity=entity,
        project=project,
        title="smmix_pl: mixers compared",
        width="fluid",
        description="Accuracy, calibration, robustness, and cost by mixer.",
        blocks=blocks,
    )


def section_keys(panel: str) -> list[str]:
    """Return the keys of metrics and figures in a section."""
    machine = MACHINE if panel == "System" else ()
    return [*panel_keys(panel), *picture_keys(panel), *machine]


def chart(key: str) -> Any:
    """Return a chart: figures, a bar for a test metric, or a line over steps."""
    _, reports = library()
    if key in {picture.key for picture in PICTURES}:
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
    """Return one bar per run, or per group of runs if they are grouped."""
    _, reports = library()
    return reports.BarPlot(
        title=key, metrics=[key], max_runs_to_show=SHOWN, max_bars_to_show=SHOWN, **OVER_SEEDS
    )


def as_json(made: Any) -> Any:
    """Return the definition that would be sent to W&B."""
    return json.loads(made._to_model().model_dump_json(by_alias=True))


def check_online() -> None:
    """Check that W&B can be used, before it is asked.

    Raises:
        InputError: No account is logged in, or W&B is set to offline mode.
    """
    known = logged_in()  # first, because it reads W&B's settings
    mode = wandb.setup().settings.mode
    if mode not in ("online", "shared"):
        raise InputError(
            f"WANDB_MODE={mode}: a dashboard is created online. Set WANDB_MODE=online, or write "
            "the definition with --output FILE."
        )
    if not known:
        raise InputError(
            "W&B has no account on this machine. Run `wandb login`, set WANDB_API_KEY, or write "
            "the definition with --output FILE."
        )


def logged_in() -> bool:
    """Return True if W&B finds an account, without prompting and without network access.

    Raises:
        InputError: W&B rejects the key or a setting that it finds.
    """
    try:
        return bool(wandb.login(prompt=False, verify=False))
    except wandb.errors.AuthenticationError as error:
        raise InputError(
            f"W&B rejects the API key that it finds ({error}). Replace it or unset it."
        ) from error
    except ValidationError as error:
        wrong = error.errors()[0]
        raise InputError(
            f"WANDB_{str(wrong['loc'][0]).upper()}={wrong['input']}: W&B rejects the setting "
            f"({wrong['msg']}). Change it or unset it."
        ) from error


def save(name: str, made: Any) -> str:
    """Save a workspace or report and return its URL.

    Raises:
        InputError: W&B cannot be reached or refuses.
    """
    try:
        made.save()
    except Exception as error:  # of several libraries for HTTP, GraphQL, and W&B
        raise InputError(
            f"W&B did not save the {name} ({str(error)[:200]}). Check the connection, that the "
            "project exists and has a run, and that the account may write to it."
        ) from error
    return str(made.url)


def library() -> tuple[Any, Any]:
    """Return the modules for workspaces and for reports.

    Raises:
        InputError: They are not installed.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        import wandb_workspaces.reports.v2 as reports
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise InputError(
            "dashboards need wandb-workspaces. Run `pip install 'smmix-pl[dashboard]'`."
        ) from error
    return workspaces, reports
