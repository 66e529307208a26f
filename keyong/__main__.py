"""``python -m keyong`` is the command ``keyong``."""

from keyong.cli import main

if __name__ == "__main__":
    main()
