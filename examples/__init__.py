"""Complete stories, each run with one command; see the README of each."""
