"""The three ways in which work fails, named by what happens next, and how any error is told."""


class FatalError(Exception):
    """The job cannot go on: a mistake in the spec, the data set, the weights or the output folder."""


class DivergedError(FatalError):
    """A training's loss is not finite. Its seed is fixed, so that another attempt ends alike."""


class ShardError(Exception):
    """This unit of work cannot be done; the job goes on without it and ends with exit code 1."""


class RetryableError(Exception):
    """This attempt failed for a passing reason (storage, a lost worker); the same unit is tried again."""


def one_line(error: BaseException) -> str:
    """The error's message on one line; its type where there is no message."""
    return " ".join(str(error).split()) or type(error).__name__
