"""What image libraries say of odd files, caught, so that it can be said with the file's name."""

import contextlib
import ctypes
import functools
import logging
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from ssdnet_jax.text import shortened

_LOGGERS = ("tifffile", "PIL")


class _Catcher:
    """Python's warnings and the libraries' log records, by the thread that caused them.

    `warnings.catch_warnings` changes the whole process, so it is entered by the first thread that
    decodes and left by the last; what other threads warn of meanwhile goes where it always went.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of_thread: dict[int, list[str]] = {}
        self._patched: contextlib.ExitStack | None = None

    @contextlib.contextmanager
    def catching(self) -> Iterator[list[str]]:
        """The messages of this thread, filled while it lasts."""
        thread = threading.get_ident()
        if thread in self._of_thread:  # a mask is read while its image is
            yield self._of_thread[thread]
            return
        messages: list[str] = []
        with self._lock:
            if not self._of_thread:
                self._patched = self._patch()
            self._of_thread[thread] = messages
        try:
            yield messages
        finally:
            with self._lock:
                del self._of_thread[thread]
                if not self._of_thread and self._patched is not None:
                    self._patched.close()
                    self._patched = None

    def _patch(self) -> contextlib.ExitStack:
        stack = contextlib.ExitStack()
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("always")
        # How large an image may be is checked elsewhere (`_raw_image.MAX_PIXELS`).
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        show = warnings.showwarning

        def keep(message: Warning | str, *rest: Any, **named: Any) -> None:
            messages = self._of_thread.get(threading.get_ident())
            if messages is None:
                show(message, *rest, **named)
            else:
                messages.append(str(message))

        warnings.showwarning = keep
        handler = logging.Handler(logging.WARNING)
        handler.emit = self._emit  # type: ignore[method-assign]
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            stack.callback(setattr, logger, "propagate", logger.propagate)
            stack.callback(logger.removeHandler, handler)
            logger.addHandler(handler)
            logger.propagate = False
        return stack

    def _emit(self, record: logging.LogRecord) -> None:
        self._of_thread.get(record.thread or 0, []).append(record.getMessage())


_catcher = _Catcher()


@contextlib.contextmanager
def library_messages() -> Iterator[list[str]]:
    """What Pillow and tifffile warn of in this thread, instead of on the error stream."""
    _silence_libtiff()
    with _catcher.catching() as messages:
        yield messages


def summary(messages: list[str]) -> tuple[str, ...]:
    """One line for any number of messages; none where there is nothing to say."""
    different = list(dict.fromkeys(" ".join(message.split()) for message in messages))
    if not different:
        return ()
    more = f" (and {len(different) - 1} more)" if different[1:] else ""
    return (f"the decoder warns: {shortened(different[0], 120)}{more}",)


@functools.cache
def _silence_libtiff() -> None:
    """Takes away the handlers by which the libtiff inside Pillow writes to the error stream.

    It writes past Python and without the file's name; what it complains of Pillow raises as well.
    Where the library is not found, its lines appear as before.
    """
    import PIL

    package = Path(PIL.__file__).parent
    places = (package.parent / "pillow.libs", package / ".dylibs")
    found = [path for place in places if place.is_dir() for path in place.glob("libtiff*")]
    for path in found or [Path("libtiff.so.6")]:
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(str(path))
            for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
                setter = getattr(library, name)
                setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
                setter(None)
