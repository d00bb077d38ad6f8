import dataclasses
import io
import os
import re
import termios

import pytest

from ssdnet_jax.errors import OutputError
from ssdnet_jax.methods.base import Progress
from ssdnet_jax.runner.terminal import Terminal
from ssdnet_jax.runner.workdir import Row
from ssdnet_jax.text import duration, one_line

NAN = float("nan")


class FakeTerminal(io.StringIO):
    """A stream that calls itself a terminal and keeps what is written to it."""

    def __init__(self, descriptor=None):
        super().__init__()
        self.descriptor = descriptor

    def isatty(self):
        return True

    def fileno(self):
        return super().fileno() if self.descriptor is None else self.descriptor

    def shown(self):
        """What was on the live line, one entry an update."""
        return [piece.rstrip() for piece in re.split(r"[\r\n]", self.getvalue()) if piece.strip()]

    def screen(self):
        """What is left to be read on the screen."""
        lines = []
        for line in self.getvalue().split("\n"):
            columns = [" "] * 400
            position = 0
            for character in line:
                if character == "\r":
                    position = 0
                else:
                    columns[position] = character
                    position += 1
            lines.append("".join(columns).rstrip())
        return lines


@pytest.fixture
def streams():
    """Standard output, a pipe, and standard error, a terminal of 100 columns."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (30, 100))
    yield io.StringIO(), FakeTerminal(theirs)
    os.close(ours)
    os.close(theirs)


@pytest.fixture
def clock(monkeypatch):
    """Time that goes on only when told to."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.time", lambda: now[0])
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])

    def advance(seconds):
        now[0] += seconds

    return advance


def begin(terminal, *names, images=1):
    terminal.start_run(images)
    terminal.images(names)


def done(path="a.png"):
    return Row(path, "ok", 0.01234, 0.005, 0.021, 100, 1e-4, 22.4)


def fit_one(terminal, clock, *, stage="fit"):
    terminal.progress(Progress(stage, 0, 100, NAN))
    clock(20)  # compilation
    terminal.progress(Progress(stage, 1, 100, 0.5))
    clock(2)
    terminal.progress(Progress(stage, 21, 100, 0.25))


def test_the_live_line_shows_steps_rate_time_left_and_loss(streams, clock):
    terminal = Terminal(*streams)
    begin(terminal, "a.png")
    fit_one(terminal, clock)
    shown = streams[1].shown()
    assert shown[0] == "reading"
    assert any("compiling" in line for line in shown)
    assert "a.png: fitting step 1/100" in shown[-2]
    # 20 steps in the 2 seconds since the first; compilation does not count.
    assert shown[-1] == (
        "a.png: fitting step 21/100, 10.00 steps/s, 00:07 left at most, loss 2.50e-01"
    )


@pytest.mark.parametrize("size", [(0, 0), (24, 0), (0, 80)])
def test_a_terminal_that_does_not_know_its_size_gets_a_line_of_the_usual_width(
    streams, clock, size
):
    termios.tcsetwinsize(streams[1].descriptor, size)
    terminal = Terminal(*streams)
    begin(terminal, "a.png", "b.png", images=2)
    fit_one(terminal, clock)
    shown = streams[1].shown()
    assert shown[-1].startswith("[0/2] 2 images: fitting step 21/100, 10.00 steps/s")
    assert max(map(len, shown)) <= 79


def test_each_fit_has_its_own_clock(streams, clock):
    terminal = Terminal(*streams)
    begin(terminal, "a.png")
    fit_one(terminal, clock, stage="inpaint")
    assert "inpainting step 21/100, 10.00 steps/s" in streams[1].shown()[-1]
    clock(50)
    fit_one(terminal, clock)
    assert "fitting step 21/100, 10.00 steps/s" in streams[1].shown()[-1]
    terminal.progress(Progress("score", 100, 100, 0.1))
    assert streams[1].shown()[-1] == "a.png: scoring"
    terminal.stage("writing")
    assert streams[1].shown()[-1] == "a.png: writing"


def test_a_folder_shows_images_done_rate_and_time_left(streams, clock):
    terminal = Terminal(*streams)
    clock(500)  # before the run: not counted
    begin(terminal, "a.png", images=4)
    fit_one(terminal, clock)  # 22 seconds
    assert streams[1].shown()[-1].startswith("[0/4] a.png: fitting step 21/100,")
    terminal.end_image(done())
    terminal.images(["b.png"])
    fit_one(terminal, clock)
    expected = "[1/4, 2.73/min, 1 min 06 s left] b.png: fitting step 21/100,"
    assert streams[1].shown()[-1].startswith(expected)


def test_several_lanes_are_counted(streams, clock):
    terminal = Terminal(*streams)
    begin(terminal, "a.png", "b.png", "c.png", images=4)
    fit_one(terminal, clock)
    assert streams[1].shown()[-1].startswith("[0/4] 3 images: fitting step 21/100,")


def test_finished_images_leave_a_line_and_the_live_line_goes(streams, clock):
    out, err = streams
    terminal = Terminal(*streams)
    terminal.note("2 images on CPU")
    begin(terminal, "a.png", images=2)
    fit_one(terminal, clock)
    terminal.end_image(dataclasses.replace(done(), p_value=0.0574))
    terminal.images(["b.png"])
    terminal.problem("b.png: damaged")
    terminal.end_image(Row("b.png", "error", error="damaged"))
    terminal.summary("1 finished, 1 failed")
    assert err.screen() == [
        "2 images on CPU",
        "[1/2] a.png: p = 0.057, 2.1% marked, 100 steps, 22 s",
        "ssdnet: b.png: damaged",
        "",
    ]
    assert out.getvalue() == "1 finished, 1 failed\n"


@pytest.mark.parametrize("name", ["long" * 60 + ".png", "検査" * 60 + ".png"])
def test_the_live_line_never_wraps(streams, clock, name):
    terminal = Terminal(*streams)
    begin(terminal, name)
    fit_one(terminal, clock)
    wide = {"検", "査"}
    assert all(sum(1 + (c in wide) for c in line) < 100 for line in streams[1].shown())
    assert "fitting step 21/100, 10.00 steps/s" in streams[1].shown()[-1]


def test_a_pipe_gets_problems_and_the_summary_only(clock):
    out, err = io.StringIO(), io.StringIO()
    terminal = Terminal(out, err)
    terminal.note("2 images")
    begin(terminal, "a.png", images=2)
    fit_one(terminal, clock)
    terminal.stage("writing")
    terminal.end_image(Row("a.png", "ok", 0.1, 0.1, 0.1, 1, 0.1, 0.1))
    assert (out.getvalue(), err.getvalue()) == ("", "")
    terminal.problem("b.png: damaged")
    terminal.summary("1 finished")
    assert (out.getvalue(), err.getvalue()) == ("1 finished\n", "ssdnet: b.png: damaged\n")


def test_a_problem_is_one_line_whatever_the_file_is_called(streams):
    for err in (io.StringIO(), FakeTerminal()):
        Terminal(io.StringIO(), err).problem("a\nb\x1b[31m\r.png: damaged")
        assert err.getvalue().strip() == r"ssdnet: a\nb\x1b[31m\r.png: damaged"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("prüfung 検査.png", "prüfung 検査.png"),
        ("a\tb", r"a\tb"),
        (b"caf\xe9".decode("utf-8", "surrogateescape"), r"caf\udce9"),
    ],
)
def test_stray_characters_are_spelled_out(text, line):
    assert one_line(text) == line
    one_line(text).encode("utf-8")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations_read_as_spoken(seconds, text):
    assert duration(seconds) == text


def test_no_live_line_is_made_for_a_pipe(monkeypatch):
    monkeypatch.setattr("tqdm.tqdm", lambda **options: pytest.fail("made"))
    Terminal(io.StringIO(), io.StringIO())


class Full(io.StringIO):
    """A stream on a full disk, or whose reader has gone."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


def test_what_several_runs_of_a_command_meet_is_said_once(streams):
    terminal = Terminal(*streams)
    for _ in range(3):
        terminal.remark("2 of 2 images are shrunk")
        terminal.problem("a.png: damaged")
    assert streams[1].screen().count("ssdnet: 2 of 2 images are shrunk") == 1
    assert streams[1].screen().count("ssdnet: a.png: damaged") == 3


def test_a_full_disk_behind_the_error_stream_stops_nothing_and_behind_the_output_is_said():
    full = OSError(28, "No space left on device")
    Terminal(io.StringIO(), Full(full)).problem("a.png: damaged")
    with pytest.raises(OutputError, match=r"\(No space left on device\).*3 finished"):
        Terminal(Full(full), io.StringIO()).summary("3 finished")
    for call in ("problem", "summary"):  # `head` has read enough
        gone = Full(BrokenPipeError())
        with pytest.raises(BrokenPipeError):
            getattr(Terminal(gone, gone), call)("text")


def test_a_problem_has_a_bounded_length_with_its_beginning_and_its_end():
    err = io.StringIO()
    Terminal(io.StringIO(), err).problem(f"a.png: found {'x' * 9999}; expected less")
    (line,) = err.getvalue().splitlines()
    assert len(line) < 420 and line.startswith("ssdnet: a.png: found x")
    assert line.endswith("; expected less")


def test_streams_that_were_closed_are_no_obstacle(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("sys.stderr", None)
    terminal = Terminal()
    terminal.problem("a.png: damaged")
    terminal.summary("1 failed")
