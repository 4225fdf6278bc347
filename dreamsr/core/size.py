"""How large a picture is."""

Size = tuple[int, int]
"""(height, width)"""
