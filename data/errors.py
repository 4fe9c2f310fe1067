"""The errors a user can meet, each also a builtin, so that callers may catch either.

Rooms raise these; only the command line turns them into exit codes. A message names the file, field or record, what was
expected and what was found, and the command that helps where there is one.
"""


class MolsakiError(Exception):
    """Base of the family; `exit_code` is what the command line ends with."""

    exit_code = 1


class ConfigError(MolsakiError, ValueError):
    """The configuration, or something that it names (a file, a model, a rule), cannot be used."""

    exit_code = 2


class DataError(MolsakiError, ValueError):
    """A data file does not have the form that its reader expects; the message names file and line."""

    exit_code = 2


class ModelError(MolsakiError, ValueError):
    """A model or tokenizer lacks what is asked of it (character offsets, attention through the interface)."""

    exit_code = 2


class MismatchError(MolsakiError, ValueError):
    """Two things that must agree do not; the message lists field, ours and theirs."""

    exit_code = 2


class MissingRecordsError(MolsakiError, LookupError):
    """A stage needs records that an earlier stage has not produced yet."""


class EngineError(MolsakiError, RuntimeError):
    """A generation engine failed or ended; what was committed before is kept."""


class PointsFailedError(MolsakiError, RuntimeError):
    """Some points of a matrix failed, each with an error that the message lists; the others are done."""


class DamagedCacheError(MolsakiError, OSError):
    """A file of a store is missing, has another size or hash, or does not decode."""

    exit_code = 65


class Interrupted(MolsakiError, InterruptedError):  # noqa: N818  (a stop that was asked for is no error)
    """A signal asked to stop and the work so far is saved; the same command goes on from there."""

    exit_code = 75


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, with its type where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
