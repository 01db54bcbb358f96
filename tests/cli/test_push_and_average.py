"""`smmix push` and `smmix average` on real runs; the hub is a server on this machine."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
import yaml
from helpers.programs import refusal, run_here

from smmix_pl.cli.main import main

BEST = "runs/digits/version_0/checkpoints/best.ckpt"
OTHER = "runs/digits/version_1/checkpoints/best.ckpt"
REPO = "someone/digits"
SMALL = "--model.backbone_args={patch_size: 5, embed_dim: 32, depth: 2, num_heads: 2}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a folder with two short digits runs; the first one was tested."""
    folder = tmp_path_factory.mktemp("pushed")
    for seed in (0, 1):
        run_here(
            *("fit", "--config=digits.yaml", SMALL, "--trainer.max_epochs=1", "--name=digits"),
            *("--trainer.limit_train_batches=8", "--trainer.check_val_every_n_epoch=1"),
            *(f"--seed_everything={seed}", f"--test_after_fit={seed == 0}"),
            *("--trainer.callbacks=[smmix_pl.callbacks.ResultsFile]", "--trainer.callbacks+=EMA"),
            *("--trainer.callbacks.decay=0.5", "--trainer.callbacks+=ModelCheckpoint"),
            *("--trainer.callbacks.filename=best", "--trainer.callbacks.monitor=val/loss"),
            cwd=folder,
        )
    return folder


class Hub(BaseHTTPRequestHandler):
    """What the hub answers to a client that creates a repository and commits to it."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append((self.path, body))
        here = f"http://127.0.0.1:{self.server.server_port}/{REPO}"
        if self.path in self.server.refused:
            answer = {"error": "refused", "url": here}
            return self.answer(answer, self.server.refused[self.path])
        if self.path.endswith("/preupload/main"):
            files = [file["path"] for file in json.loads(body)["files"]]
            plain = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            return self.answer({"files": [{"path": path} | plain for path in files]})
        if self.path.endswith("/commit/main"):
            return self.answer({"commitUrl": f"{here}/commit/1", "commitOid": "1"})
        return self.answer({"url": here, "errors": [], "warnings": []})

    def answer(self, content, status=200):
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *words):
        pass


@pytest.fixture
def hub(monkeypatch):
    """Return a hub that the client is logged in to."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.requests, server.refused = [], {}
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        yield server
        server.shutdown()


def header_of(card):
    header, text = card.removeprefix("---\n").split("\n---\n", 1)
    return yaml.safe_load(header), text


def test_the_folder_that_would_be_pushed_needs_no_network(runs):
    run_here("push", BEST, REPO, "--license=mit", "--output=pushed", cwd=runs)
    files = {path.name for path in (runs / "pushed").iterdir()}
    assert files == {"README.md", "config.json", "model.safetensors"}
    header, text = header_of((runs / "pushed/README.md").read_text())
    assert header["license"] == "mit"
    assert header["library_name"] == "timm"
    results = json.loads((runs / "runs/digits/version_0/results.json").read_text())["metrics"]
    [listed] = header["model-index"][0]["results"]
    values = {metric["name"]: metric["value"] for metric in listed["metrics"]}
    assert values == {"top-1": results["top1"]["value"], "top-5": results["top5"]["value"]}
    assert f"timm.create_model('hf-hub:{REPO}', pretrained=True)" in text
    assert f"{results['top1']['value']:.2%}" in text
    settings = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert settings["model"]["backbone_args"]["embed_dim"] == 32
    assert timm.create_model(f"local-dir:{runs / 'pushed'}", pretrained=True).num_classes == 10


def test_a_push_creates_a_repository_and_commits_all_files(runs, hub):
    printed = run_here("push", BEST, REPO, "--private=true", cwd=runs)
    assert REPO in printed
    paths = [path for path, _ in hub.requests]
    created = json.loads(hub.requests[paths.index("/api/repos/create")][1])
    assert (created["organization"], created["name"]) == tuple(REPO.split("/"))
    assert "private" in (created.get("visibility"), *created)
    [commit] = [body for path, body in hub.requests if path.endswith("/commit/main")]
    entries = [json.loads(line) for line in commit.splitlines()]
    files = {one["value"]["path"]: one["value"] for one in entries if one["key"] == "file"}
    assert files.keys() == {"README.md", "config.json", "model.safetensors"}
    card = base64.b64decode(files["README.md"]["content"]).decode()
    assert f"hf-hub:{REPO}" in card
    assert "license" not in header_of(card)[0]


@pytest.mark.parametrize(
    ("status", "part"), [(409, "--overwrite"), (401, "token"), (403, "token"), (400, "rejected")]
)
def test_a_refusal_of_the_hub_is_one_line(status, part, runs, hub, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    hub.refused["/api/repos/create"] = status
    line = refusal(main, ["push", BEST, REPO], capsys)
    assert f"REPO={REPO}" in line
    assert part in line
    assert not [path for path, _ in hub.requests if path.endswith("/commit/main")]


def test_the_files_of_an_existing_repository_can_be_replaced(runs, hub):
    hub.refused["/api/repos/create"] = 409
    run_here("push", BEST, REPO, "--overwrite=true", cwd=runs)
    assert [path for path, _ in hub.requests if path.endswith("/commit/main")]


@pytest.mark.parametrize("repo", ["a/b/c", "no spaces", ".name", "a--b", ""])
def test_the_name_of_a_repository_is_checked_first(repo, runs, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    assert f"REPO={repo}:" in refusal(main, ["push", "gone.ckpt", repo], capsys)


def test_a_push_needs_a_login_and_a_hub(runs, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(runs)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert "HF_TOKEN" in refusal(main, ["push", BEST, REPO], capsys)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9" in refusal(main, ["push", BEST, REPO], capsys)


def read(path):
    return torch.load(path, weights_only=True)


def test_an_average_is_the_mean_and_can_be_tested_and_exported(runs):
    run_here("average", BEST, OTHER, "--output", "soup.ckpt", cwd=runs)
    soup, *parts = (read(runs / path) for path in ("soup.ckpt", BEST, OTHER))
    for name, weight in soup["state_dict"].items():
        first, second = (part["state_dict"][name] for part in parts)
        assert weight.dtype == first.dtype
        torch.testing.assert_close(weight, (first + second) / 2)
    assert [source["seed"] for source in soup["averaged"]] == [0, 1]
    assert [source["file"] for source in soup["averaged"]] == [BEST, OTHER]
    assert "seed" not in soup["trained"]
    assert "optimizer_states" not in soup  # training does not resume from it
    run_here("export", "soup.ckpt", "--output", "soup", cwd=runs)
    assert "mean of 2 checkpoints" in (runs / "soup/README.md").read_text()
    run_here(
        *("test", "--config=digits.yaml", SMALL, "--ckpt_path=soup.ckpt", "--name=soup"),
        "--trainer.callbacks=[smmix_pl.callbacks.ResultsFile]",
        cwd=runs,
    )
    assert (runs / "runs/soup/version_0/results.json").is_file()


def changed(runs, change):
    """Write a checkpoint whose content a function changes, and return its name."""
    content = read(runs / OTHER)
    change(content)
    torch.save(content, runs / "changed.ckpt")
    return "changed.ckpt"


def test_counters_and_tables_of_integers_are_not_averaged(runs):
    table, counter = "backbone.model.index", "backbone.model.num_batches_tracked"
    files = []
    for count, path in enumerate((BEST, OTHER)):
        content = read(runs / path)
        content["state_dict"] |= {table: torch.arange(3), counter: torch.tensor(count)}
        files.append(f"counted_{count}.ckpt")
        torch.save(content, runs / files[-1])
    run_here("average", *files, "--output", "counted.ckpt", cwd=runs)
    weights = read(runs / "counted.ckpt")["state_dict"]
    assert weights[table].tolist() == [0, 1, 2]
    assert weights[counter] == 1


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda old: old["state_dict"].popitem(), "model"),
        (lambda old: old["state_dict"].update({"backbone.model.norm.bias": torch.ones(5)}), "bias"),
        (lambda old: old["hyper_parameters"].update(backbone="deit"), "backbone=deit"),
        (lambda old: old["hyper_parameters"].update(mean=[0, 0, 0]), "mean"),
        (lambda old: old["trained"].update(mixer="CutMix"), "CutMix"),
        (lambda old: old["prepared"]["label_names"].reverse(), "prepared"),
        (lambda old: old.update(temperature=1.5), "temperature"),
        (lambda old: old.pop("hyper_parameters"), "checkpoint"),
    ],
)
def test_other_models_and_recipes_are_not_averaged(change, part, runs, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    file = changed(runs, change)
    line = refusal(main, ["average", BEST, file, "--output", "x.ckpt"], capsys)
    assert file in line
    assert part in line
    assert not Path("x.ckpt").exists()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([BEST, "--output", "x.ckpt"], "CHECKPOINT"),
        ([BEST, BEST, "--output", "x.ckpt"], BEST),
        ([BEST, OTHER, "--output", "x.pth"], "x.pth"),
        ([BEST, OTHER], "output"),
        ([BEST, "gone.ckpt", "--output", "x.ckpt"], "gone.ckpt"),
    ],
)
def test_unusable_arguments_of_average(words, part, runs, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    assert part in refusal(main, ["average", *words], capsys)
