import hashlib
import http.server
import io
import threading
import urllib.error

import pytest
import torch

from keep.utils import downloads
from keep.utils.errors import UserError

CONTENT = b"weights" * 1000
HASH = hashlib.sha256(CONTENT).hexdigest()[:8]
URL = "https://example.invalid/net.pth"


class Answer(io.BytesIO):
    headers = {"Content-Length": str(len(CONTENT))}


@pytest.fixture(autouse=True)
def opened(monkeypatch, tmp_path):
    """No network: ``urlopen`` returns CONTENT and records the URLs; both caches are empty folders."""
    urls = []

    def urlopen(request, timeout):
        urls.append(request.full_url)
        return Answer(CONTENT)

    monkeypatch.setattr(downloads.urllib.request, "urlopen", urlopen)
    monkeypatch.setenv("KEEP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return urls


def test_downloads_once(opened, tmp_path):
    path = downloads.fetch(URL, HASH, "net.pth")
    assert path == tmp_path / "home/net.pth"
    assert path.read_bytes() == CONTENT
    assert downloads.fetch(URL, HASH, "net.pth") == path
    assert opened == [URL]
    assert [p.name for p in path.parent.iterdir()] == ["net.pth"]


def test_a_copy_of_torch_hub_is_taken_first(opened, tmp_path):
    hub = tmp_path / "hub/checkpoints/net.pth"
    hub.parent.mkdir(parents=True)
    hub.write_bytes(CONTENT)
    assert downloads.fetch(URL, HASH, "net.pth") == hub
    assert not opened
    hub.write_bytes(b"damaged")
    assert downloads.fetch(URL, HASH, "net.pth") == tmp_path / "home/net.pth"


def test_a_damaged_copy_is_not_used(tmp_path):
    (tmp_path / "net.pth").write_bytes(b"damaged")
    with pytest.raises(UserError, match="damaged"):
        downloads.fetch(URL, HASH, "net.pth", cache=tmp_path)


def test_another_file_than_expected_is_not_kept(tmp_path):
    with pytest.raises(UserError, match="is not the expected file"):
        downloads.fetch(URL, "00000000", "net.pth", cache=tmp_path / "c")
    assert not list((tmp_path / "c").iterdir())


def test_no_network(monkeypatch, tmp_path):
    def urlopen(url, timeout):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(downloads.urllib.request, "urlopen", urlopen)
    with pytest.raises(downloads.Unavailable) as error:
        downloads.fetch(URL, HASH, "net.pth", option="losses.lpips.weights")
    message = str(error.value)
    assert "\n" not in message
    assert all(s in message for s in (URL, str(tmp_path / "home/net.pth"), "option losses.lpips.weights to"))


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; ``cut``: bytes until it closes the connection; ``ranges``: whether it can resume."""

    cut: int | None = None
    ranges = True
    requested: list[str | None] = []

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.requested.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if start >= len(CONTENT):
            return self.send_error(416)
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.cut])

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server on this machine: its handler class and its address, with the real ``urlopen``."""
    monkeypatch.undo()
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(Server):
        requested: list[str | None] = []

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield Handler, f"http://127.0.0.1:{httpd.server_port}/net.pth"
        httpd.shutdown()
        thread.join()


def test_a_cut_download_is_resumed(server, tmp_path, capsys):
    handler, url = server
    handler.cut = 100
    with pytest.raises(downloads.Unavailable, match=r"ended after 100 of 7000 bytes"):
        downloads.fetch(url, HASH, "net.pth", cache=tmp_path)
    assert (tmp_path / "net.pth.part").read_bytes() == CONTENT[:100]
    handler.cut = None
    path = downloads.fetch(url, HASH, "net.pth", cache=tmp_path)
    assert path.read_bytes() == CONTENT
    assert handler.requested == [None, "bytes=100-"]
    assert [p.name for p in tmp_path.iterdir()] == ["net.pth"]
    assert "net.pth" in capsys.readouterr().err  # the progress bar


def test_a_server_that_cannot_resume_starts_over(server, tmp_path):
    handler, url = server
    handler.ranges = False
    (tmp_path / "net.pth.part").write_bytes(CONTENT[:100])
    assert downloads.fetch(url, HASH, "net.pth", cache=tmp_path).read_bytes() == CONTENT


def test_a_partial_file_of_another_download_is_replaced(server, tmp_path):
    handler, url = server
    (tmp_path / "net.pth.part").write_bytes(b"x" * 100)
    assert downloads.fetch(url, HASH, "net.pth", cache=tmp_path).read_bytes() == CONTENT
    assert handler.requested == ["bytes=100-", None]


def test_a_partial_file_that_is_complete(server, tmp_path):
    _, url = server
    (tmp_path / "net.pth.part").write_bytes(CONTENT)
    assert downloads.fetch(url, HASH, "net.pth", cache=tmp_path).read_bytes() == CONTENT


def test_a_wrong_hash_leaves_nothing(server, tmp_path):
    _, url = server
    with pytest.raises(UserError, match="is not the expected file"):
        downloads.fetch(url, "00000000", "net.pth", cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_file_on_the_server(server, tmp_path):
    handler, url = server
    handler.do_GET = lambda self: self.send_error(404)
    with pytest.raises(downloads.Unavailable, match="404"):
        downloads.fetch(url, HASH, "net.pth", cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_two_at_once_download_once(server, tmp_path):
    handler, url = server
    threads = [
        threading.Thread(target=downloads.fetch, args=(url, HASH, "net.pth"), kwargs={"cache": tmp_path})
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert handler.requested == [None]
    assert [p.name for p in tmp_path.iterdir()] == ["net.pth"]
