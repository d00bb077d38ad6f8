"""Images one after another, for methods that do not fit."""

import dataclasses
import time
from collections.abc import Callable, Collection

from ssdnet_jax.runner.record import IMAGE_ERRORS, error_row
from ssdnet_jax.runner.run import Summary
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.workdir import Row, Workdir


def run_in_order(
    relatives: Collection[str],
    score: Callable[[str], Row],
    workdir: Workdir,
    terminal: Terminal,
    *,
    stop: Callable[[], bool],
) -> Summary:
    """Scores images that are not finished yet; one that fails gets a row with status "error".

    Args:
      relatives: paths of all images.
      score: writes the files of an image and returns its row, without the time it took.
      workdir: images finished there before are left alone.
      terminal: shows progress and problems.
      stop: asked between images; True ends the run.
    """
    started = time.monotonic()
    todo = [path for path in relatives if path not in workdir.finished]
    terminal.start_run(len(todo))
    finished = failed = 0
    for relative in todo:
        if stop():
            break
        image_started = time.monotonic()
        terminal.images([relative])
        terminal.stage("scoring")
        try:
            row = score(relative)
            finished += 1
        except IMAGE_ERRORS as error:
            row = error_row(relative, error, terminal)
            failed += 1
        row = dataclasses.replace(row, seconds=time.monotonic() - image_started)
        workdir.append(row)
        terminal.end_image(row)
    workdir.order(relatives)
    return Summary(
        finished=finished,
        failed=failed,
        finished_before=len(relatives) - len(todo),
        seconds=time.monotonic() - started,
        stopped=stop(),
    )
