"""What is told of a value that will not do."""

from dreamsr.errors import ConfigError


def require(condition: bool, key: str, expected: str, given: object) -> None:
    """Raise ConfigError, `KEY is GIVEN; expected EXPECTED`, unless the condition holds."""
    if not condition:
        raise ConfigError(f"{key} is {given!r}; expected {expected}")
