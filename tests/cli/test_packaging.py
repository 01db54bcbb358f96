"""What an install that is not editable contains."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_wheel_has_the_package_the_recipes_and_the_programs(tmp_path):
    subprocess.run(
        [sys.executable, *("-m", "pip", "wheel", "--no-deps", "--no-build-isolation"), ROOT],
        cwd=tmp_path,
        check=True,
    )
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [entry_points] = [name for name in names if name.endswith("entry_points.txt")]
        programs = archive.read(entry_points).decode()
        archive.extractall(tmp_path / "installed")
    for folder, pattern in (("smmix_pl", "*.py"), ("configs", "*.yaml")):
        for path in (ROOT / folder).rglob(pattern):
            inside = path.relative_to(ROOT).as_posix()
            assert inside.replace("configs/", "smmix_pl/configs/") in names, inside
    assert "lightning = smmix_pl.cli.main:main" in programs
    assert "smmix = smmix_pl.cli.main:main" in programs
    help_text = subprocess.run(
        [sys.executable, "-m", "smmix_pl", "--help"],
        cwd=tmp_path / "installed",
        env={"PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
    )
    assert "deit_t.yaml" in help_text.stdout, help_text.stderr
