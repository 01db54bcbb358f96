"""Commands in processes of their own that share one import: a start costs a fork."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

PROLOGUE = "import sys; sys.path.insert(0, {tests!r})\nfrom killing import start, prepare, RECIPE\n"


def script(body: str, folder: Path) -> dict:
    """Runs Python that ends in ``print(json.dumps(...))``, in a folder with ``recipe.yaml``."""
    from helpers.killed_runs import RECIPE

    (folder / "recipe.yaml").write_text(RECIPE)
    code = PROLOGUE.format(tests=str(Path(__file__).parent))
    code += "import smmix_pl.cli.main, json, os, signal, time\nfrom pathlib import Path\n"
    code += textwrap.dedent(body)
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])
