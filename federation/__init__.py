"""What all parties must agree on: crypto, statements, ledger, policy, aggregation and wire formats."""
