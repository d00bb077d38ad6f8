"""Byte ranges of a file behind HTTP, by the standard library alone."""

import concurrent.futures
import http.client
import threading
import urllib.request
from collections.abc import Callable
from typing import Any

from ssdnet_jax.errors import InputError

TIMEOUT_SECONDS = 30.0  # without another byte
ANSWER_SECONDS = 10.0  # until the first; a network that swallows packets must not hold up a run
_CHUNK_BYTES = 2**18


class RemoteFile:
    """Byte ranges of a file behind HTTP.

    A server that ignores the Range header sends the file from its beginning; that one answer is
    then read onwards for as long as the ranges asked for ascend.
    """

    def __init__(self, url: str):
        self._url = url
        self._stream: Any = None
        self._position = 0
        self._answers_ranges = False

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def read(self, start: int, stop: int) -> bytes:
        """Returns the bytes from `start` to `stop` - 1."""
        if not self._url.lower().startswith(("http://", "https://")):
            raise InputError(f"{self._url}: expected an address beginning with http:// or https://")
        try:
            if self._stream is None or self._position > start:
                self._open(start, stop)
            while self._position < start:
                self._take(min(start - self._position, _CHUNK_BYTES))
            chunks = []
            while self._position < stop:
                chunks.append(self._take(min(stop - self._position, _CHUNK_BYTES)))
            if self._answers_ranges:
                self.close()
            return b"".join(chunks)
        except (OSError, ValueError, http.client.HTTPException) as error:
            self.close()
            if isinstance(error, InputError):
                raise
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"{self._url}: download failed ({reason})") from error

    def _open(self, start: int, stop: int) -> None:
        self.close()
        headers = {"Range": f"bytes={start}-{stop - 1}", "User-Agent": "ssdnet-jax"}
        request = urllib.request.Request(self._url, headers=headers)
        # build_opener reads the proxy variables now, urlopen only at its first call
        opener = urllib.request.build_opener()
        self._stream = _within(
            ANSWER_SECONDS, lambda: opener.open(request, timeout=TIMEOUT_SECONDS)
        )
        self._position = 0
        self._answers_ranges = self._stream.status == http.client.PARTIAL_CONTENT
        if self._answers_ranges:
            content_range = self._stream.headers.get("Content-Range", "")
            if not content_range.startswith(f"bytes {start}-"):
                raise InputError(
                    f"{self._url}: answered with {content_range!r:.60}; expected bytes {start}-"
                )
            self._position = start

    def _take(self, count: int) -> bytes:
        data = self._stream.read(count)
        if not data:
            raise ConnectionError(f"the answer ended at byte {self._position}")
        self._position += len(data)
        return data


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """What `call` returns, or a TimeoutError; it then goes on in a thread that nobody waits for.

    A socket's own timeout holds for each of a host's addresses in turn, which adds up to minutes,
    and not at all for looking up its name.
    """
    outcome: concurrent.futures.Future = concurrent.futures.Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except Exception as error:
            outcome.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    if not concurrent.futures.wait([outcome], seconds).done:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return outcome.result()
