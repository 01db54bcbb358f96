"""Plots of logged values over optimizer steps, one line per run or method."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from smmix_pl.plots.style import add_note, draw_band, line_style, new_panel, paper_style
from smmix_pl.reporting.logged_run import Run, headline, loss_settings
from smmix_pl.reporting.metric_names import metric_name, metric_spec

POINTS = 200
"""Maximum number of points of a line; longer ones are averaged."""
SMOOTH = 40
"""Number of points of the smoothed line over a noisy one."""
STAGES = {"val": "validation", "val_weights": "validation, not averaged"}
"""Display names of the stages whose values are logged over steps."""


def can_share_a_plot(key: str, methods: Mapping[str, Sequence[Run]]) -> bool:
    """Return True unless the value is the total loss of runs that sum different losses."""
    if key != "train/loss":
        return True
    return len({loss_settings(run) for runs in methods.values() for run in runs}) == 1


@paper_style
def line_plot(key: str, methods: Mapping[str, Sequence[Run]]) -> Figure:
    """Plot a logged value over optimizer steps.

    Several seeds are drawn as their mean with a band of one standard deviation, and noisy training
    values of a single run as a faint line under the smoothed one.

    Args:
        key: Logged key.
        methods: Runs of each seed by name.
    """
    figure, axes = new_panel((4.0, 2.6))
    scale = 100 if _unit(key) == "%" else 1
    for index, (name, runs) in enumerate(methods.items()):
        logged = [run.lines[key] for run in runs if key in run.lines]
        if not logged:
            continue
        all_steps, all_values = over_seeds(logged)
        steps, values = averaged(all_steps, POINTS), averaged(scale * all_values, POINTS)
        style = line_style(index) | ({"marker": ""} if len(steps) > 30 else {})
        if key.startswith("train/") and len(steps) > SMOOTH:  # the branches alternate
            if len(values) == 1:
                axes.plot(steps, values[0], color=style["color"], alpha=0.25, linewidth=0.7)
            steps, values = averaged(steps, SMOOTH), averaged(values, SMOOTH)
        draw_band(axes, steps, values, label=name, **style)
    name, stage = metric_name(key), STAGES.get(key.split("/")[0])
    if name.split()[0].islower():  # not mIoU
        name = name[0].upper() + name[1:]
    title = f"{name} ({stage})" if stage else name
    axes.set(title=title, xlabel="Optimizer step", ylabel=_unit(key))
    if len(methods) > 1:
        axes.legend()
    about = dict.fromkeys(headline(run) for runs in methods.values() for run in runs)
    if len(about) == 1:
        add_note(figure, next(iter(about)))
    return figure


def over_seeds(logged: Sequence[tuple[list[float], list[float]]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps that all seeds logged, `(N,)`, and the values of each seed, `(S, N)`."""
    tables = [dict(zip(steps, values, strict=True)) for steps, values in logged]
    common = sorted(set.intersection(*(set(table) for table in tables)))
    return np.array(common), np.array([[table[step] for step in common] for table in tables])


def averaged(values: np.ndarray, points: int) -> np.ndarray:
    """Average neighbors along the last axis so that at most `points` values are left."""
    count = values.shape[-1]
    starts = np.arange(0, count, -(-count // points)) if count else np.arange(0)
    sizes = np.diff(np.append(starts, count))
    return np.add.reduceat(values, starts, axis=-1) / sizes if count else values


def caption(key: str, methods: Mapping[str, Sequence[Run]]) -> str:
    """Return what a plot shows, for a reader who sees nothing else."""
    spec = metric_spec(key)
    meaning = key if spec is None else spec.meaning
    better = f"; {spec.better} is better" if spec is not None and spec.better else ""
    stages = {
        "val": " on the validation images",
        "val_weights": " on the validation images, with the trained weights instead of their EMA",
    }
    seeds = sorted({len(runs) for runs in methods.values()})
    count = " to ".join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))
    spread = (
        f" Mean over {count} seeds with a band of one standard deviation." if seeds[-1] > 1 else ""
    )
    return f"{meaning}{stages.get(key.split('/')[0], '')}{better}.{spread}"


def _unit(key: str) -> str:
    spec = metric_spec(key)
    units = {"fraction": "%", "seconds": "s"}
    return "" if spec is None else units.get(spec.unit, spec.unit)
