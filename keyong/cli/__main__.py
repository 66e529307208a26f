"""``python -m keyong.cli``: the command, where no script is installed."""

from keyong.cli import main

main()
