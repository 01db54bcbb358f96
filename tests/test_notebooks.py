"""The notebooks run from top to bottom, and the container copies what exists."""

import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(file, tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("EPOCHS", "5")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    programs = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(file, as_version=4)
    settings = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=None, kernel_name="python3", resources=settings).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    printed = "".join(output.get("text", "") for output in outputs)
    for text in ("top1", "occlusion_75", "step 0: loss", "'0', '1', '2'"):
        assert text in printed


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(file):
    import nbformat

    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    assert not [cell for cell in notebook.cells if cell.get("outputs")]


def test_the_container_copies_what_exists():
    text = (ROOT / "docs/docker/Dockerfile").read_text()
    sources = [word for line in re.findall(r"^COPY (.*) \S+$", text, re.M) for word in line.split()]
    assert {"setup.cfg", "smmix_pl", "configs"} <= set(sources)
    assert all((ROOT / source).exists() for source in sources)
