"""Programs in processes of their own that share one import of the package.

Importing torch, lightning, timm, and wandb takes ten seconds of a core. A server process imports
them once and is forked for each program, which then runs as `python -m smmix_pl` or as a script
does: with its own arguments, environment, folder, and output.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Iterable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from lightning.fabric.plugins.environments.lightning import find_free_network_port

Environment = dict[str, str | None]

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["smmix_pl.cli.lightning_cli", "smmix_pl.module", "smmix_pl.callbacks", "smmix_pl.data"]
)
PROCESS_GROUP = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "NODE_RANK", "LOCAL_RANK")
"""What a test that started a process group leaves in the environment."""


def environment(changes: Environment | None = None) -> dict[str, str]:
    """Return the environment of a program: one thread, W&B off; a change to None unsets."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    clean = {key: value for key, value in clean.items() if key not in PROCESS_GROUP}
    clean |= {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    return {key: value for key, value in (clean | (changes or {})).items() if value is not None}


def start(
    words: Iterable[object], cwd: Path, env: Environment | None = None, log: str = "log"
) -> BaseProcess:
    """Start `smmix`, or the Python script that the first word names.

    What it prints is appended to `<log>.out` and `<log>.err` in its folder.
    """
    arguments = ([str(word) for word in words], cwd, environment(env), cwd / log)
    process = SERVER.Process(target=_run, args=arguments)
    process.start()
    return process


def run(
    *words: object, cwd: Path, env: Environment | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `smmix`, or a Python script, to its end."""
    [result] = _finish(words, cwd, [env or {}])
    return result


def run_ranks(
    ranks: int, *words: object, cwd: Path, env: Environment | None = None
) -> list[subprocess.CompletedProcess[str]]:
    """Run a program on several ranks, started as torchrun or a job scheduler starts them."""
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_network_port())}
    group |= {"NODE_RANK": "0", "WORLD_SIZE": str(ranks)}
    own = [group | {"LOCAL_RANK": str(rank), "RANK": str(rank)} for rank in range(ranks)]
    return _finish(words, cwd, [variables | (env or {}) for variables in own])


def _finish(
    words: Sequence[object], cwd: Path, environments: Sequence[Environment]
) -> list[subprocess.CompletedProcess[str]]:
    """Run a program once per environment, all at the same time; kill what a failure leaves."""
    logs = [f".process_{number}" for number in range(len(environments))]
    processes = [start(words, cwd, env, log) for env, log in zip(environments, logs, strict=True)]
    try:
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.kill()
    results = []
    for process, log in zip(processes, logs, strict=True):
        files = [cwd / f"{log}.{stream}" for stream in ("out", "err")]
        out, err = (file.read_text() for file in files)
        for file in files:
            file.unlink()
        results.append(subprocess.CompletedProcess(words, process.exitcode or 0, out, err))
    return results


def _run(words: list[str], cwd: Path, env: dict[str, str], log: Path) -> None:
    """Become a program, in a process that the server has forked."""
    atexit._clear()  # a child must not clean up what its server still needs
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for stream, ending in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{log}.{ending}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    script = Path(words[0])
    is_script = script.suffix == ".py"
    own = script.absolute().parent if is_script else cwd
    sys.path[:0] = [str(own), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    try:
        if is_script:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
        else:
            sys.argv = ["smmix", *words]
            runpy.run_module("smmix_pl", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # multiprocessing ends a process without them
