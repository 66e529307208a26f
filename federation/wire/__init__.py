"""The wire: links between members and coordinator, and what travels on them."""
