"""A server on this machine that tests download from."""

import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from published_sets import gz


class Server:
    """Mirrors on this machine: `answers[path]` is a status and a body; `asked` lists the paths.

    `cut` bytes more are said than come; with a pause it comes byte by byte.
    """

    def __init__(self):
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.asked: list[str] = []
        self.cut = 0
        self.pause = 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                status, body = outer.answers.get(self.path, (404, b"not here"))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body) + outer.cut))
                # A client that has given up is not there to read.
                with suppress(ConnectionError):
                    self.end_headers()
                    if not outer.pause:
                        self.wfile.write(body)
                    for byte in body if outer.pause else b"":
                        self.wfile.write(bytes([byte]))
                        time.sleep(outer.pause)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def mirror(self, name: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{name}/"

    def serve(self, mirror: str, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            self.answers[f"/{mirror}/{name}.gz"] = (200, gz(content))

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
