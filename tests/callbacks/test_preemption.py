"""Signals, full disks, and folders that vanish: the run saves, or prints a one-line error."""

import csv

import pytest
import torch
from helpers.forked_runs import script
from helpers.image_folders import write_image_folder

STOP = """
def run(words, *acts):
    # Each act is a signal or a function, applied after this run has written a checkpoint
    log = Path("log.txt")
    log.unlink(missing_ok=True)
    began = time.time()
    pid = start(Path("."), words)
    for act in acts:
        while not any(f.stat().st_mtime > began for f in Path("runs").rglob("last.ckpt")):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status), log.read_text()
            time.sleep(0.005)
        time.sleep(0.05)
        act() if callable(act) else os.kill(pid, act)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, log.read_text()
"""

SIGNALING = """
import os

from lightning.pytorch import Callback


class Signaling(Callback):
    def __init__(self, hook: str, number: int) -> None:
        self.hook, self.number = hook, number
        setattr(self, hook, self.send)

    def send(self, trainer, *_, **__):
        if self.number and not (trainer.sanity_checking and "validation_batch" in self.hook):
            os.kill(os.getpid(), self.number)
            self.number = 0
"""


def test_a_signal_saves_and_the_run_resumes_exactly(tmp_path):
    outcomes = script(
        STOP
        + """
long = ["--trainer.max_epochs=12"]
print(json.dumps([
    run([*long, "--trainer.logger.init_args.name=straight"]),
    run(long, signal.SIGTERM),
    run([*long, "--ckpt_path", "last"], signal.SIGUSR1),
    run([*long, "--ckpt_path", "last"]),
]))
""",
        tmp_path,
    )
    assert [status for status, _ in outcomes] == [0, 75, 75, 0], outcomes
    for (_, output), name in zip(outcomes[1:3], ("SIGTERM", "SIGUSR1"), strict=True):
        assert name in output
        assert "last.ckpt" in output
        assert "Traceback" not in output
    ends = [
        torch.load(tmp_path / f"runs/{name}/version_0/checkpoints/last.ckpt", weights_only=True)
        for name in ("straight", "small")
    ]
    for name, weight in ends[0]["current_model_state"].items():
        assert torch.equal(weight, ends[1]["current_model_state"][name]), name
    logs = []
    for name in ("straight", "small"):
        with (tmp_path / f"runs/{name}/version_0/metrics.csv").open() as file:
            logs.append([(r["step"], r["train/loss"]) for r in csv.DictReader(file)])
    assert logs[0] == logs[1]


HOOKS = [
    "setup",
    "on_sanity_check_start",
    "on_sanity_check_end",
    "on_train_start",
    "on_train_epoch_end",
    "on_validation_batch_start",
    "on_save_checkpoint",
    "on_train_end",
    "on_test_batch_start",
]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_signal_in_any_phase_exits_with_status_75(tmp_path):
    (tmp_path / "signaling.py").write_text(SIGNALING)
    outcomes = script(
        STOP
        + f"""
sys.path.insert(0, os.getcwd())
os.environ["SMMIX_PACKAGES"] = "signaling"
found = {{}}
for hook in {HOOKS}:
    for number in (signal.SIGTERM, signal.SIGUSR1):
        found[hook + str(int(number))] = run([
            "--trainer.max_epochs=2", "--trainer.limit_train_batches=3", "--test_after_fit=true",
            "--trainer.limit_val_batches=2", "--trainer.limit_test_batches=1",
            "--trainer.callbacks+=signaling.Signaling", f"--trainer.callbacks.hook={{hook}}",
            f"--trainer.callbacks.number={{int(number)}}",
            f"--trainer.logger.init_args.name={{hook}}",
        ])
print(json.dumps(found))
""",
        tmp_path,
    )
    for hook, (status, output) in outcomes.items():
        assert status == 75, (hook, output[-1000:])
        assert "Stopped by SIG" in output, hook
        assert "Traceback" not in output, hook


def test_an_evaluation_stops_at_once(tmp_path):
    (tmp_path / "signaling.py").write_text(SIGNALING)
    (trained, _), (tested, output) = script(
        STOP
        + """
trained = run(["--trainer.max_epochs=1"])
sys.path.insert(0, os.getcwd())
os.environ["SMMIX_PACKAGES"] = "signaling"
smmix_pl.cli.main.main, fit = (lambda words: fit(["test", *words[1:]])), smmix_pl.cli.main.main
print(json.dumps([trained, run([
    "--ckpt_path", "runs/small/version_0/checkpoints/last.ckpt",
    "--trainer.callbacks+=signaling.Signaling", "--trainer.callbacks.hook=on_test_batch_end",
    f"--trainer.callbacks.number={int(signal.SIGTERM)}",
])]))
""",
        tmp_path,
    )
    assert trained == 0
    assert tested == 75
    assert "SIGTERM" in output


def test_a_run_leaves_its_process_unchanged(tmp_path):
    before, after, left = script(
        """
import gc, torch
from lightning.pytorch import LightningModule, Trainer

def state():
    handlers = [str(signal.getsignal(number)) for number in (2, 10, 15)]
    switches = [torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic]
    return [*handlers, *switches, torch.get_num_threads(), os.environ.get("PL_GLOBAL_SEED")]

before = state()
for name in ("one", "two"):
    smmix_pl.cli.main.main([
        "fit", "--config", "recipe.yaml", "--trainer.max_epochs=1", "--trainer.deterministic=true",
        "--test_after_fit=true", f"--trainer.logger.init_args.name={name}",
    ])
after = state()
gc.collect()
left = [type(o).__name__ for o in gc.get_objects() if isinstance(o, (Trainer, LightningModule))]
print(json.dumps([before, after, left]))
""",
        tmp_path,
    )
    assert before == after
    assert left.count("Trainer") <= 1  # of the last run; jsonargparse may keep its last parser


SCONTROL = """#!/bin/sh
echo "$@" >> {folder}/requested
"""


@pytest.mark.parametrize("array", [False, True], ids=["job", "array"])
def test_slurm_requeues_the_job_which_resumes_its_own_run(tmp_path, array):
    """A program named scontrol records its arguments in place of SLURM's."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(SCONTROL.format(folder=tmp_path))
    scontrol.chmod(0o755)
    variables = {"SLURM_JOB_ID": "7"}
    other = {"SLURM_JOB_ID": "8"}
    if array:
        variables |= {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
        other |= {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "4"}
    outcomes = script(
        STOP
        + f"""
os.environ |= {{"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0",
               "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}}
os.environ["PATH"] = os.path.abspath("bin") + ":" + os.environ["PATH"]
long = ["--trainer.max_epochs=12"]
os.environ |= {variables}
first = run(long, signal.SIGUSR1)
os.environ |= {other}
other = run(["--trainer.max_epochs=1"])
os.environ |= {variables} | {{"SLURM_RESTART_COUNT": "1"}}
print(json.dumps([first, other, run(["--trainer.max_epochs=12"])]))
""",
        tmp_path,
    )
    assert [status for status, _ in outcomes] == [75, 0, 0], outcomes
    requested = (tmp_path / "requested").read_text().split()
    assert requested == ["requeue", "7_3" if array else "7"]
    assert "runs/small/version_0/checkpoints/last.ckpt" in outcomes[2][1]


def test_without_scontrol_the_run_still_saves_and_exits_with_status_75(tmp_path):
    [[status, output]] = script(
        STOP
        + """
os.environ |= {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "7",
               "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "PATH": "/none"}
print(json.dumps([run(["--trainer.max_epochs=12"], signal.SIGUSR1)]))
""",
        tmp_path,
    )
    assert status == 75, output[-2000:]
    assert "scontrol" in output
    assert "last.ckpt" in output


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))", []),
        ("None", ["--trainer.logger.init_args.save_dir=/proc/none"]),
        ("Path('file').touch()", ["--trainer.logger.init_args.save_dir=file"]),
    ],
    ids=["full disk", "read-only folder", "a file for a folder"],
)
def test_a_run_that_cannot_be_written_prints_one_line(tmp_path, limit, words):
    [[status, output]] = script(
        STOP
        + f"""
import resource
{limit}
print(json.dumps([run({words!r})]))
""",
        tmp_path,
    )
    error = output.strip().splitlines()[-1]
    assert status == 2, output[-2000:]
    assert error.startswith("error: "), error
    assert "Traceback" not in output


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path):
    """The first run fits on the disk; the second resumes with a limit on file sizes."""
    first, second, third = script(
        STOP
        + """
import resource
one = run(["--trainer.max_epochs=12"], signal.SIGTERM)
size = next(Path("runs").rglob("last.ckpt")).stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, resource.RLIM_INFINITY))
two = run(["--trainer.max_epochs=12", "--ckpt_path", "last"])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(json.dumps([one, two, run(["--trainer.max_epochs=12", "--ckpt_path", "last"])]))
""",
        tmp_path,
    )
    assert first[0] == 75
    assert second[0] == 2
    error = second[1].strip().splitlines()[-1]
    assert "File too large" in error
    assert "runs/small/version_0/checkpoints/last.ckpt" in error
    assert third[0] == 0, third[1][-2000:]


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_data_folder_that_vanishes_is_named_with_the_last_good_checkpoint(tmp_path, policy):
    root = tmp_path / "images"
    write_image_folder(root / "train", per_class=16)
    write_image_folder(root / "val", per_class=2)
    outcome = script(
        STOP
        + f"""
words = ["--data=smmix_pl.data.Folder", "--data.root=images", "--data.batch_size=4",
         "--data.image_size=16", "--data.bad_images={policy}", "--trainer.max_epochs=1000"]
print(json.dumps(run(words, lambda: os.rename("images", "gone"))))
""",
        tmp_path,
    )
    status, output = outcome
    error = output.strip().splitlines()[-1]
    assert status == 2, output[-2000:]
    assert error.startswith("error: ")
    assert "images/" in error
    assert "runs/small/version_0/checkpoints/last.ckpt" in error
    assert "Traceback" not in output
