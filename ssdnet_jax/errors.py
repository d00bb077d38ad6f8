"""Errors a user can cause and mend; each message is one line: what, found, expected."""


class SSDnetError(ValueError):
    """Base of all errors that name something the user can change."""


class InputError(SSDnetError):
    """An image, mask, weight file or folder that cannot be used."""


class NoWeightsError(InputError):
    """Weights that a method needs, that are not downloaded, and that nobody has named."""


class ConfigError(SSDnetError):
    """A configuration field, or a combination of fields, that cannot work."""


class OutputError(SSDnetError):
    """Standard output cannot be written; the results are in the work folder all the same."""


class Stopped(Exception):
    """A command was told to end before it was done; what is finished is kept."""
