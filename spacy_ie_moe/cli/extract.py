def extract() -> None:
    """Not written yet."""
