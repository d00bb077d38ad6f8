"""Text that people read: in one line of bounded length, durations and chances in words."""

_LEAST_P = 1e-12  # smaller p-values say no more


def one_line(text: str) -> str:
    """Text whose control characters and stray bytes, legal in file names, are spelled out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shortened(text: str, most: int) -> str:
    """A text in one line of at most so many characters, cut in its middle where it is longer."""
    text = " ".join(text.split())
    if len(text) <= most:
        return text
    tail = most // 3
    return f"{text[: most - tail - 3]} … {text[-tail:]}"


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 image", "3 images"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def duration(seconds: float) -> str:
    """Seconds as a person says them: "42 s", "3 min 20 s", "2 h 05 min"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def chance(p_value: float) -> str:
    """A p-value, in [0, 1], with two digits: "p = 0.057", "p < 1e-12"."""
    return f"p < {_LEAST_P:g}" if p_value < _LEAST_P else f"p = {p_value:.2g}"
