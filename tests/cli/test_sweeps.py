"""The shipped W&B sweeps: their commands, as W&B's agent expands them, run and resume."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path

import pytest
import yaml
from helpers.programs import run_here

from smmix_pl.cli.config_paths import configs_folder
from smmix_pl.reporting.metric_names import metric_spec

SMALL = "{patch_size: 5, embed_dim: 32, depth: 2, num_heads: 2}"
SWEEPS = sorted((configs_folder() / "sweeps").glob("*.yaml"))


def expanded(sweep, values):
    """Return the command of a run as the agent starts it, without the program."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    macros = create_sweep_command_args({"args": {key: {"value": values[key]} for key in values}})
    words = []
    for word in create_sweep_command(list(sweep["command"])):
        words += macros[word[2:-1]] if word.startswith("${") else [word]
    assert words.pop(0) == sweep["program"] == "smmix"
    return words


def extremes(parameters):
    """Yield combinations of the parameters' values, with both ends of each interval."""
    choices = [one.get("values") or [one["min"], one["max"]] for one in parameters.values()]
    for values in product(*(choice[:: max(1, len(choice) - 1)] for choice in choices)):
        yield dict(zip(parameters, values, strict=True))


@pytest.mark.parametrize("file", SWEEPS, ids=lambda path: path.stem)
def test_the_parser_accepts_what_a_sweep_runs(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    sweep = yaml.safe_load(file.read_text())
    assert sweep["method"] in ("grid", "random", "bayes")
    assert metric_spec(sweep["metric"]["name"]) is not None
    first, *_, last = extremes(sweep["parameters"])
    for values in (first, last):
        with pytest.raises(SystemExit) as stop:
            run_here(*expanded(sweep, values), "--print_config", cwd=tmp_path)
        assert not stop.value.code


@pytest.mark.slow
def test_a_run_of_a_sweep_has_a_folder_and_resumes_in_it(tmp_path, monkeypatch):
    sweep = yaml.safe_load(SWEEPS[0].read_text())
    values = next(extremes(sweep["parameters"])) | {"trainer.limit_train_batches": 2}
    small = [f"--model.backbone_args={SMALL}", "--test_after_fit=false"]
    small += ["--trainer.check_val_every_n_epoch=1"]
    for run, epochs in (("first", 1), ("second", 1), ("first", 2)):
        monkeypatch.setenv("WANDB_RUN_ID", run)
        words = expanded(sweep, values | {"trainer.max_epochs": epochs})
        run_here(*words, *small, cwd=tmp_path)
    runs = {path.parent.name: path for path in tmp_path.glob("runs/sweep/*/version_*")}
    assert runs.keys() == {"first", "second"}
    for run, epochs in (("first", 2), ("second", 1)):
        rows = (runs[run] / "metrics.csv").read_text().splitlines()
        epoch = rows[0].split(",").index("epoch")
        assert {row.split(",")[epoch] for row in rows[1:]} == {str(n) for n in range(epochs)}


class Server(BaseHTTPRequestHandler):
    """What W&B answers to an agent: one run, which is stopped in training and queued again."""

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        query, server = request["query"], self.server
        answer = {}
        if "viewer" in query:
            answer = {"viewer": {"id": "1", "entity": "someone", "username": "someone"}}
        elif "SweepWithRuns" in query:
            sweep = {"id": "1", "name": "sweep", "config": server.sweep, "runs": {"edges": []}}
            answer = {"project": {"sweep": sweep}}
        elif "createAgent" in query:
            answer = {"createAgent": {"agent": {"id": "1"}}}
        elif "agentHeartbeat" in query:
            running = bool(json.loads(request["variables"]["runState"]))
            answer = {"agentHeartbeat": {"commands": json.dumps(self.commands(running))}}
        body = json.dumps({"data": answer}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def commands(self, running):
        sent = self.server.sent
        kinds = "run", "stop", "resume", "exit"
        trains = self.server.metrics.is_file() and len(self.server.metrics.read_text()) > 0
        if len(sent) == len(kinds) or running != (kinds[len(sent)] == "stop"):
            return []
        if kinds[len(sent)] == "stop" and not trains:
            return []
        sent.append(kinds[len(sent)])
        return [self.server.run | {"type": sent[-1]}]

    def log_message(self, *words):
        pass


@pytest.mark.slow
def test_the_agent_of_wandb_starts_stops_and_resumes_a_run(tmp_path):
    text = SWEEPS[0].read_text()
    values = next(extremes(yaml.safe_load(text)["parameters"]))
    values |= {"trainer.max_epochs": 80, "trainer.limit_train_batches": 2}
    values |= {"trainer.check_val_every_n_epoch": 1, "trainer.log_every_n_steps": 1}
    values |= {"model.backbone_args": SMALL, "test_after_fit": False}
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.sweep, server.sent = text, []
        server.metrics = tmp_path / "runs/sweep/abc123/version_0/metrics.csv"
        args = {name: {"value": value} for name, value in values.items()}
        server.run = {"run_id": "abc123", "program": "smmix", "args": args}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = {"WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}"}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {"WANDB_API_KEY": "0" * 40, "WANDB_MODE": "offline", "HOME": str(tmp_path)}
        agent = subprocess.run(
            [sys.executable, "-m", "wandb", "agent", "someone/project/sweep"],
            cwd=tmp_path,
            env=os.environ | address | own | {"PATH": path, "OMP_NUM_THREADS": "1"},
            timeout=280,
            capture_output=True,
            text=True,
        )
        server.shutdown()
    assert agent.returncode == 0, agent.stderr[-2000:]
    assert server.sent == ["run", "stop", "resume", "exit"]
    assert [path.name for path in server.metrics.parents[1].iterdir()] == ["version_0"]
    rows = [row.split(",") for row in server.metrics.read_text().splitlines()]
    step, loss = rows[0].index("step"), rows[0].index("train/loss")
    assert [int(row[step]) for row in rows[1:] if row[loss]] == list(range(160))
