"""Text that people read: in one line of bounded length, and durations in words."""


def one_line(text: str) -> str:
    """Text whose control characters and stray bytes, legal in file names, are spelled out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shortened(text: str, most: int) -> str:
    """At most so many characters, at least 3; of a longer text the beginning and some of the end.

    What was found stands at the beginning of our errors, and what was expected at their end.
    """
    if len(text) <= most:
        return text
    end = (most - 1) // 3
    return f"{text[: most - 1 - end]}…{text[len(text) - end :]}"


def duration(seconds: float) -> str:
    """Seconds as a person says them: "42 s", "3 min 20 s", "2 h 05 min"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
