"""What raw files may turn out to be."""


class PrepareError(ValueError):
    """A raw file is not what the example can read, or cannot become a table without guessing."""
