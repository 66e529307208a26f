"""Generated from link.proto; do not edit (make proto)."""
