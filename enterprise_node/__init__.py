"""One company's side: its datasets, and the one straight line on which anything may be computed with them."""
