"""Commands in processes of their own that share one import, so that starting one costs a fork."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

from helpers.killed_runs import RECIPE

PROLOGUE = (
    "import sys; sys.path.insert(0, {tests!r})\n"
    "from helpers.killed_runs import start, prepare, RECIPE\n"
    "import smmix_pl.cli.main, json, os, signal, time\n"
    "import smmix_pl.module, smmix_pl.callbacks\n"
    "from pathlib import Path\n"
)


def script(body: str, folder: Path) -> list:
    """Run Python code that prints JSON last, in a folder with `recipe.yaml`."""
    (folder / "recipe.yaml").write_text(RECIPE)
    code = PROLOGUE.format(tests=str(Path(__file__).parents[1])) + textwrap.dedent(body)
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])
