def convert() -> None:
    """Not written yet."""
