"""Downloads from a real server: verified, resumable, atomic, and never outside their folder."""

import hashlib
import io
import tarfile
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from helpers import data_trees, processes
from helpers.programs import TINY_FLAGS

from smmix_pl.data import CUB, ImageNet
from smmix_pl.data.io.download import Archive, fetch, unpack
from smmix_pl.errors import InputError


class RangeServer(SimpleHTTPRequestHandler):
    """Serves ranges of a file, like real servers; can disconnect halfway."""

    disconnect = False
    chunked = False

    def do_GET(self):
        content = Path(self.translate_path(self.path)).read_bytes()
        begin = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.requests.append(begin)
        if begin >= len(content):
            return self.send_error(416)
        self.send_response(206 if begin else 200)
        if self.chunked:  # and disconnected in the middle of a chunk
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(f"{len(content):x}\r\n".encode() + content[:20])
            return None
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        cut = (len(content) - begin) // 2 if self.disconnect else None
        self.wfile.write(content[begin:][:cut])

    def log_message(self, *words):
        pass


@pytest.fixture
def server(tmp_path):
    handler = type("Handler", (RangeServer,), {"requests": []})
    (tmp_path / "served").mkdir()
    bound = partial(handler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), bound) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        running.handler = handler
        running.folder = tmp_path / "served"
        yield running
        running.shutdown()


@pytest.fixture
def cub_archive(server, tmp_path):
    """CUB's archive on the server."""
    data_trees.cub(tmp_path / "raw")
    file = server.folder / "CUB_200_2011.tgz"
    with tarfile.open(file, "w:gz") as tar:
        tar.add(tmp_path / "raw" / "CUB_200_2011", "CUB_200_2011")
    address = f"http://127.0.0.1:{server.server_address[1]}/{file.name}"
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    return Archive(address, md5, gives="CUB_200_2011")


def served_cub(archive, **options):
    return type("ServedCUB", (CUB,), {"archives": (archive,)})(download=True, **options)


def test_the_constructor_knows_the_classes_without_a_download(cub_archive, server, tmp_path):
    data = served_cub(cub_archive, root=str(tmp_path / "root"))
    assert data.num_classes == 200
    assert server.handler.requests == []
    assert not (tmp_path / "root").exists()


def test_a_dataset_is_downloaded_once(cub_archive, server, tmp_path):
    root = tmp_path / "root"
    for _ in range(2):
        data = served_cub(cub_archive, root=str(root), image_size=32, batch_size=2)
        data.prepare_data()
        data.setup("fit")
        assert len(data.class_names) == 200
    assert server.handler.requests == [0]
    assert {path.name for path in root.iterdir()} <= {"CUB_200_2011", ".download.lock"}


RUN = """
import os

from smmix_pl.cli import main
from smmix_pl.data import CUB
from smmix_pl.data.io.download import Archive


class ServedCUB(CUB):
    archives = (Archive(os.environ["URL"], os.environ["MD5"], "CUB_200_2011"),)

    def prepare_data(self):
        print("prepared", flush=True)
        super().prepare_data()


main.main()
"""


def test_one_of_two_processes_downloads(cub_archive, server, tmp_path):
    """`smmix fit --data.download true` on a root that does not exist, on two CPU ranks."""
    script = data_trees.put(tmp_path / "run.py", RUN)
    options = """--data.download=true --data.batch_size=2 --trainer.devices=2
    --trainer.strategy=ddp --trainer.max_epochs=1 --trainer.limit_val_batches=1
    --trainer.logger=false --trainer.enable_progress_bar=false
    --trainer.enable_model_summary=false"""
    words = ["fit", "--data=ServedCUB", f"--data.root={tmp_path / 'root'}", *TINY_FLAGS]
    words += options.split()
    archive = {"URL": cub_archive.url, "MD5": cub_archive.md5, "SMMIX_PACKAGES": "__main__"}
    ranks = processes.run_ranks(2, script, *words, cwd=tmp_path, env=archive)
    for rank in ranks:
        assert rank.returncode == 0, rank.stderr[-3000:]
    assert server.handler.requests == [0]
    assert [rank.stdout.count("prepared") for rank in ranks] == [1, 0]


def test_an_interrupted_download_resumes(cub_archive, server, tmp_path):
    server.handler.disconnect = True
    with pytest.raises(InputError, match=r"CUB_200_2011\.tgz\.part"):
        fetch((cub_archive,), tmp_path / "root")
    assert not (tmp_path / "root" / "CUB_200_2011").exists()
    server.handler.disconnect = False
    fetch((cub_archive,), tmp_path / "root")
    assert server.handler.requests[0] == 0
    assert server.handler.requests[1] > 0
    assert (tmp_path / "root" / "CUB_200_2011" / "images.txt").exists()


def test_an_interrupted_stream_is_an_error(cub_archive, server, tmp_path):
    server.handler.chunked = True
    with pytest.raises(InputError, match=cub_archive.url):
        fetch((cub_archive,), tmp_path / "root")
    assert not (tmp_path / "root" / "CUB_200_2011").exists()


def test_a_wrong_file_is_removed(cub_archive, tmp_path):
    with pytest.raises(InputError, match="MD5"):
        fetch((cub_archive._replace(md5="0" * 32),), tmp_path / "root")
    assert not list((tmp_path / "root").glob("CUB*"))


def test_another_archive_is_refused(cub_archive, tmp_path):
    with pytest.raises(InputError, match="birds"):
        fetch((cub_archive._replace(gives="birds"),), tmp_path / "root")


def test_a_dataset_without_an_open_download_says_so(tmp_path):
    with pytest.raises(InputError, match=r"data\.download=true.*ImageNet"):
        ImageNet(root=str(tmp_path), download=True)


def test_an_absent_server_is_an_error(tmp_path):
    archive = Archive("http://127.0.0.1:9/none.tgz", "0" * 32, "none")
    with pytest.raises(InputError, match=archive.url):
        fetch((archive,), tmp_path)


@pytest.mark.parametrize(
    "name", ["../outside.txt", "/tmp/smmix_outside.txt", "a/../../outside.txt"]
)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_cannot_write_outside_its_folder(tmp_path, name, kind):
    file = tmp_path / f"evil.{kind}"
    if kind == "tar":
        with tarfile.open(file, "w") as tar:
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
    else:
        with zipfile.ZipFile(file, "w") as zipped:
            zipped.writestr(name, b"evil")
    inside = tmp_path / "deep" / "inside"
    try:
        unpack(file, inside)
    except InputError as error:
        assert str(file) in str(error)
    outside = [path for path in tmp_path.rglob("*.txt") if inside not in path.parents]
    assert not outside
    assert not Path("/tmp/smmix_outside.txt").exists()


def test_a_truncated_archive_is_refused(cub_archive, server, tmp_path):
    file = server.folder / "CUB_200_2011.tgz"
    content = file.read_bytes()
    (tmp_path / "cut.tgz").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"cut\.tgz"):
        unpack(tmp_path / "cut.tgz", tmp_path / "out")
