"""The errors facefit raises on purpose: each names the file or argument, what is wrong, what to do next."""


class FacefitError(Exception):
    """Base of all deliberate errors. `exit_status` is what the command line returns for it."""

    exit_status = 2


class InputError(FacefitError):
    """A caller's mistake: a missing file, an unknown model, an argument out of range; nothing was done."""

    exit_status = 2


class PhotoError(FacefitError):
    """A photograph that could not be fitted: unreadable, no face found. Others of the call go on."""

    exit_status = 1
