"""The migrations of ``store.db``, one module a revision; how to add one is in docs/data-model.md."""
