"""Starts a real training run repeatedly and kills it, then lets it finish.

`python killed_runs.py FOLDER KILLS SEED` prints the outcome as JSON. The program is imported once
and forked for each start, so each run is a process of its own and starts quickly.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

RECIPE = """
seed_everything: 1
model:
  backbone: vit_tiny_patch16_224
  backbone_args: {patch_size: 4, embed_dim: 64, depth: 2, num_heads: 2, drop_path_rate: 0.1}
  mixer: {class_path: smmix_pl.SMMix}
  optim: {lr: 1.0e-3, lr_batch: null, warmup_epochs: 1}
data:
  class_path: smmix_pl.Digits
  init_args: {image_size: 16, batch_size: 32, num_workers: 0, held_out: 0.1}
trainer:
  max_epochs: 6
  limit_train_batches: 8
  accelerator: cpu
  log_every_n_steps: 1
  enable_progress_bar: false
  logger:
    - class_path: lightning.pytorch.loggers.CSVLogger
      init_args: {save_dir: runs, name: small}
  callbacks:
    - class_path: ModelCheckpoint
      init_args: {monitor: val/loss, filename: best, enable_version_counter: false}
    - class_path: ModelCheckpoint
      init_args: {filename: last, save_on_train_epoch_end: true, enable_version_counter: false}
    - class_path: smmix_pl.callbacks.EMA
      init_args: {decay: 0.9}
"""


def start(folder: Path, words: list[str]) -> int:
    """Start a run in its own process, with its output in `log.txt`; return the process id."""
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        os.chdir(folder)
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        from smmix_pl.cli.main import main

        main(["fit", "--config", "recipe.yaml", *words])
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait_for(pid: int, moment: float, folder: Path | None) -> int | None:
    """Wait until a moment, or until a checkpoint is half written; return the status if it ends."""
    while time.monotonic() < moment:
        if folder is not None and any(folder.glob("runs/small/*/checkpoints/*.unfinished")):
            return None
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.0002 if folder is not None else 0.01)
    return None


def prepare(folder: Path, epochs: int) -> Path:
    folder.mkdir()
    (folder / "recipe.yaml").write_text(RECIPE.replace("max_epochs: 6", f"max_epochs: {epochs}"))
    return folder


def main(folder: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    began = time.monotonic()
    straight = os.waitpid(start(prepare(folder / "straight", 2 * kills), []), 0)[1]
    length = time.monotonic() - began
    killed, points = prepare(folder / "killed", 2 * kills), []
    longest = length * min(0.5, 3 / kills)  # short enough that the last kills find it running
    while len(points) < kills:
        writing = len(points) % 2 == 1
        pid = start(killed, ["--ckpt_path", "last"])
        ended = wait_for(pid, time.monotonic() + rng.uniform(0, longest), None)
        if ended is None and writing:
            ended = wait_for(pid, time.monotonic() + length, killed)
        if ended is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        half = any(killed.glob("runs/small/*/checkpoints/*.unfinished"))
        points.append("ended" if ended is not None else "half a file" if half else "killed")
    end = os.waitpid(start(killed, ["--ckpt_path", "last"]), 0)[1]
    print(json.dumps({"straight": straight, "end": end, "points": points}))


if __name__ == "__main__":
    import smmix_pl.cli.main
    import smmix_pl.module  # noqa: F401 - once for all starts

    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
