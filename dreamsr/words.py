"""Numbers in messages."""


def counted(number: int, noun: str) -> str:
    """`1 step`, `4 steps`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
