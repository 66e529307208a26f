"""A ledger as pages for owners and auditors: searched, drawn, and verified in the reader's own browser.

Read-only throughout. What is shown is read from the ledger's entries; the index beside it only finds them.
"""
