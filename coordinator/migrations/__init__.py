"""The migrations of ``coordinator.db``, one module a revision; how to add one is in docs/data-model.md."""

from federation.stores import Store

COORDINATOR_STORE = Store("coordinator", "coordinator.migrations")
"""Invitations, mail, the catalog, jobs and their events."""
