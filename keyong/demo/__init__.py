"""The demo: the whole story of a consortium on one machine, with the commands and processes that real ones use."""
