"""Errors that a user can act on. Everything else is a bug and keeps its traceback."""


class DreamSRError(Exception):
    """Something the user can mend: `message` says what is wrong, `hint` what to type next."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.told = False
        """Whether another process tells the user."""


class UsageError(DreamSRError):
    """A wrong option or argument: exit code 2."""


class ConfigError(UsageError):
    """A wrong key or value in a training configuration."""


class ImageError(DreamSRError):
    """A picture that cannot be read or written."""


class CheckpointError(DreamSRError):
    """A file that is no dreamsr checkpoint, or not one that this version reads."""


class DiskFullError(DreamSRError):
    """No room to write: nothing that follows would succeed."""
