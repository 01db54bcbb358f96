"""`smmix dashboard`: a W&B workspace and report for a project."""

import json
from collections.abc import Sequence
from pathlib import Path

from smmix_pl.cli.tool_parser import ToolParser

DESCRIPTION = """Create a W&B workspace for a project and a report that compares its mixers. Each
call creates new ones. Needs the extra `dashboard`."""


def main(words: Sequence[str]) -> None:
    """Create the dashboard, or write its definition.

    Args:
        words: Words of the command line after the command.
    """
    parser = ToolParser("dashboard", DESCRIPTION)
    parser.add_argument("project", metavar="ENTITY/PROJECT", help="W&B project, as in its URL.")
    parser.add_argument(
        "--output",
        type=Path | None,
        default=None,
        help="Write the definition to this JSON file instead. Needs no network and no login.",
    )
    options = parser.parse_args(list(words))
    from smmix_pl.reporting import wandb_dashboard as dashboard

    entity, project = dashboard.split_project(options.project)
    made = {
        "workspace": dashboard.workspace(entity, project),
        "report": dashboard.report(entity, project),
    }
    if options.output is not None:
        definition = {name: dashboard.as_json(one) for name, one in made.items()}
        options.output.write_text(json.dumps(definition, indent=1))
        print(f"Wrote {options.output}.")
        return
    dashboard.check_online()
    for name, one in made.items():
        print(f"{name}: {dashboard.save(name, one)}", flush=True)
