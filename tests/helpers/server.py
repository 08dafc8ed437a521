"""A server of files on this machine, that counts what is asked for and may die."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


class Server:
    """``asked`` are the paths, in order; in the answer to ``dies_at`` it breaks off for good.

    ``answers`` has for some paths another status, and what becomes of the content; ``login`` is the
    header that it wants.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked, self.sent = folder, [], 0
        self.dies_at = self.login = ""
        self.answers: dict[str, tuple[int, Callable[[bytes], bytes]]] = {}
        outer = self

        class Handler(SimpleHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self, head: bool = False) -> None:
                outer.asked.append(self.path)
                if outer.login and self.headers.get("Authorization") != outer.login:
                    self.send_error(401)
                    return
                self.close_connection = dead = outer.dies_at in outer.asked
                if dead and self.path != outer.dies_at:
                    return
                file = outer.folder / unquote(self.path).lstrip("/")
                if not file.is_file():
                    self.send_response(404)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                status, change = outer.answers.get(self.path, (0, bytes))
                content = change(file.read_bytes())
                wanted = self.headers.get("Range")
                self.send_response(status or (206 if wanted else 200))
                self.send_header("Accept-Ranges", "bytes")
                if wanted:
                    first, last = wanted.removeprefix("bytes=").split("-")
                    start, whole = int(first), len(content)
                    content = content[start : int(last or whole) + 1]
                    place = f"bytes {start}-{start + len(content) - 1}/{whole}"
                    self.send_header("Content-Range", place)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if not head:
                    content = content[: len(content) // 2] if dead else content
                    outer.sent += len(content)
                    self.wfile.write(content)

            def do_HEAD(self) -> None:
                self.do_GET(head=True)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    thread = threading.Thread(target=server._server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server._server.shutdown()
        server._server.server_close()
        thread.join()
