"""Downloads, from a real server: verified, resumed, whole or not there, and never outside."""

import hashlib
import io
import tarfile
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from helpers import data_trees
import pytest

from smmix_pl.data import CUB, ImageNet
from smmix_pl.data.io.download import Archive, fetch, unpack
from smmix_pl.errors import InputError


class RangeServer(SimpleHTTPRequestHandler):
    """Serves the rest of a file, as real servers do; can break off in the middle."""

    break_off = False
    chunked = False

    def do_GET(self):
        content = Path(self.translate_path(self.path)).read_bytes()
        begin = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.requests.append(begin)
        if begin >= len(content):
            return self.send_error(416)
        self.send_response(206 if begin else 200)
        if self.chunked:  # and broken off in the middle of a chunk
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(f"{len(content):x}\r\n".encode() + content[:20])
            return None
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        cut = (len(content) - begin) // 2 if self.break_off else None
        self.wfile.write(content[begin:][:cut])

    def log_message(self, *words):
        pass


@pytest.fixture
def server(tmp_path):
    handler = type("Handler", (RangeServer,), {"requests": []})
    (tmp_path / "served").mkdir()
    bound = partial(handler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), bound) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        running.handler = handler
        running.folder = tmp_path / "served"
        yield running
        running.shutdown()


@pytest.fixture
def cub_archive(server, tmp_path):
    """CUB's archive on the server, and a data module that knows its address."""
    data_trees.cub(tmp_path / "raw")
    file = server.folder / "CUB_200_2011.tgz"
    with tarfile.open(file, "w:gz") as tar:
        tar.add(tmp_path / "raw" / "CUB_200_2011", "CUB_200_2011")
    address = f"http://127.0.0.1:{server.server_address[1]}/{file.name}"
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    return Archive(address, md5, gives="CUB_200_2011")


def small(archive):
    return type("SmallCUB", (CUB,), {"archives": (archive,)})


def test_a_set_is_fetched_once(cub_archive, server, tmp_path):
    root = tmp_path / "root"
    for _ in range(2):
        data = small(cub_archive)(root=str(root), download=True, batch_size=2)
        assert data.num_classes == 3
    assert server.handler.requests == [0]
    assert {path.name for path in root.iterdir()} <= {"CUB_200_2011", ".download.lock"}


def test_a_broken_download_goes_on_where_it_stopped(cub_archive, server, tmp_path):
    server.handler.break_off = True
    with pytest.raises(InputError, match="run the command again to go on"):
        fetch((cub_archive,), tmp_path / "root", "CUB")
    assert not (tmp_path / "root" / "CUB_200_2011").exists()
    server.handler.break_off = False
    fetch((cub_archive,), tmp_path / "root", "CUB")
    assert server.handler.requests[0] == 0
    assert server.handler.requests[1] > 0
    assert (tmp_path / "root" / "CUB_200_2011" / "images.txt").exists()


def test_a_stream_that_breaks_off_is_told(cub_archive, server, tmp_path):
    server.handler.chunked = True
    with pytest.raises(InputError, match="run the command again to go on"):
        fetch((cub_archive,), tmp_path / "root", "CUB")
    assert not (tmp_path / "root" / "CUB_200_2011").exists()


def test_a_wrong_file_is_removed(cub_archive, tmp_path):
    with pytest.raises(InputError, match="MD5"):
        fetch((cub_archive._replace(md5="0" * 32),), tmp_path / "root", "CUB")
    assert not list((tmp_path / "root").glob("CUB*"))


def test_another_archive_is_told(cub_archive, tmp_path):
    with pytest.raises(InputError, match="does not hold birds"):
        fetch((cub_archive._replace(gives="birds"),), tmp_path / "root", "CUB")


def test_a_set_without_an_open_download_says_so(tmp_path):
    with pytest.raises(InputError, match="get it from its owner"):
        ImageNet(root=str(tmp_path), download=True)


def test_an_absent_server_is_told(tmp_path):
    archive = Archive("http://127.0.0.1:9/none.tgz", "0" * 32, "none")
    with pytest.raises(InputError, match="cannot be downloaded"):
        fetch((archive,), tmp_path, "Set")


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
        assert "cannot be unpacked" in str(error)
    outside = [path for path in tmp_path.rglob("*.txt") if inside not in path.parents]
    assert not outside
    assert not Path("/tmp/smmix_outside.txt").exists()


def test_a_cut_off_archive_is_told(cub_archive, server, tmp_path):
    file = server.folder / "CUB_200_2011.tgz"
    (tmp_path / "cut.tgz").write_bytes(file.read_bytes()[:-40])
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpack(tmp_path / "cut.tgz", tmp_path / "out")
