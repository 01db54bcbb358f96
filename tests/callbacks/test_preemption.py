"""Signals, full disks, folders that cannot be written or vanish: saved, or told in one sentence."""

import csv
import stat

import pytest
import torch
from helpers.forked_runs import script
from helpers.image_folders import write_image_folder

STOP = """
def run(words, *acts):
    # Each act is a signal or a function, after this run has written a checkpoint
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


def test_a_signal_saves_and_ends_and_the_run_goes_on_exactly(tmp_path):
    told = script(
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
    (straight, _), (term, said), (usr1, said_again), (end, _) = told
    assert (straight, term, usr1, end) == (0, 75, 75, 0), told
    assert "stopped by SIGTERM at step" in said
    assert "stopped by SIGUSR1 at step" in said_again
    assert "Traceback" not in said + said_again
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


def test_an_evaluation_that_is_told_to_stop_ends_at_once(tmp_path):
    """It has nothing to save; Lightning by itself would note the signal and go on."""
    [trained, _], status = script(
        STOP
        + """
trained = run(["--trainer.max_epochs=1"])
pid = os.fork()
if not pid:
    import threading
    from smmix_pl.callbacks import Calibration
    begin = Calibration.begin
    def begins(*_):  # in the middle of the test
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
    Calibration.begin = begins
    smmix_pl.cli.main.main([
        "test", "--config", "recipe.yaml", "--trainer.callbacks+=smmix_pl.callbacks.Calibration",
        "--ckpt_path", "runs/small/version_0/checkpoints/last.ckpt",
    ])
    os._exit(0)
print(json.dumps([trained, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]))
""",
        tmp_path,
    )
    assert trained == 0
    assert status == -15


def test_slurm_requeues_and_the_job_finds_its_own_run(tmp_path):
    """SLURM itself is not here: a program of scontrol's name writes down what it is asked."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    scontrol.chmod(scontrol.stat().st_mode | stat.S_IEXEC)
    told = script(
        STOP
        + """
os.environ |= {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "7",
               "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
os.environ["PATH"] = os.path.abspath("bin") + ":" + os.environ["PATH"]
long = ["--trainer.max_epochs=12"]
first = run(long, signal.SIGUSR1)
os.environ["SLURM_JOB_ID"] = "8"
other = run(["--trainer.max_epochs=1"])
os.environ |= {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}
print(json.dumps([first, other, run(["--trainer.max_epochs=12"])]))
""",
        tmp_path,
    )
    assert [status for status, _ in told] == [75, 0, 0], told
    assert (tmp_path / "asked").read_text().split() == ["requeue", "7"]
    assert "the run goes on from runs/small/version_0/checkpoints/last.ckpt" in told[2][1]


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))", []),
        ("None", ["--trainer.logger.init_args.save_dir=/proc/none"]),
        ("Path('file').touch()", ["--trainer.logger.init_args.save_dir=file"]),
    ],
    ids=["full disk", "read-only folder", "a file for a folder"],
)
def test_a_run_that_cannot_be_written_ends_in_a_sentence(tmp_path, limit, words):
    [[status, said]] = script(
        STOP
        + f"""
import resource
{limit}
print(json.dumps([run({words!r})]))
""",
        tmp_path,
    )
    sentence = said.strip().splitlines()[-1]
    assert status == 2, said[-2000:]
    assert sentence.startswith("error: "), sentence
    assert "Traceback" not in said
    assert "cannot be" in sentence


def test_a_disk_that_fills_up_leaves_the_last_good_checkpoint(tmp_path):
    """The first run fits; the second goes on with files that no longer may grow."""
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
    sentence = second[1].strip().splitlines()[-1]
    assert "cannot be written (File too large)" in sentence
    assert "goes on from the last good one, runs/small/version_0/checkpoints/last.ckpt" in sentence
    assert third[0] == 0, third[1][-2000:]


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_data_folder_that_vanishes_is_told_with_the_last_good_checkpoint(tmp_path, policy):
    root = tmp_path / "images"
    write_image_folder(root / "train", per_class=16)
    write_image_folder(root / "val", per_class=2)
    told = script(
        STOP
        + f"""
words = ["--data=smmix_pl.data.Folder", "--data.root=images", "--data.batch_size=4",
         "--data.image_size=16", "--data.bad_images={policy}", "--trainer.max_epochs=1000"]
print(json.dumps(run(words, lambda: os.rename("images", "gone"))))
""",
        tmp_path,
    )
    status, said = told
    sentence = said.strip().splitlines()[-1]
    assert status == 2, said[-2000:]
    assert sentence.startswith("error: ")
    assert "images/" in sentence
    assert "goes on from the last good one, runs/small/version_0/checkpoints/last.ckpt" in sentence
    assert "Traceback" not in said
