"""A page started as a user starts it, in a process of its own, and when it answers."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.fresh import ROOT

APP, BARE = ("app.py", "--port"), ("-m", "benchmarks.bare_page")
_GIVE_UP_SECONDS, _POLL_SECONDS = 120, 0.01


@dataclass(frozen=True)
class Server:
    """A running page: its address, when it was started and how long its first answer took."""

    url: str
    started: float
    answer_s: float

    def ready_s(self) -> float:
        """Seconds from the start until a first scan has answered: one point on 50 images, asked of
        the page itself, which must have loaded torch, the images and the model for it."""
        address = f"{self.url}gradio_api/call/scan"
        body = json.dumps({"data": [["linear"], [50], 50, "float32", 1]}).encode()
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=_GIVE_UP_SECONDS) as answer:
            event = json.load(answer)["event_id"]
        with urllib.request.urlopen(f"{address}/{event}", timeout=_GIVE_UP_SECONDS) as answer:
            told = answer.read().decode()
        if "event: complete" not in told:
            raise RuntimeError(f"the page did not scan: {told[-500:]}")
        return time.perf_counter() - self.started


@contextmanager
def running(command: Sequence[str]) -> Iterator[Server]:
    """The page of `python COMMAND PORT`, once it has answered; ended on leaving.

    Raises RuntimeError with the end of its output where it ends or does not answer.
    """
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "0"}
        with tempfile.TemporaryFile("w+") as log:
            started = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, *command, str(port)],
                cwd=ROOT, stdout=log, stderr=log, env=environment,
            )  # fmt: skip
            try:
                url = f"http://127.0.0.1:{port}/"
                if not _answers(url, process):
                    log.seek(0)
                    raise RuntimeError(f"{' '.join(command)} did not answer: {log.read()[-2000:]}")
                yield Server(url, started, time.perf_counter() - started)
            finally:
                process.terminate()
                process.wait(timeout=30)


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + _GIVE_UP_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(answer.read())
        except OSError:
            time.sleep(_POLL_SECONDS)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
