"""Programs that want out: shipped to the node as job code, each trying one thing.

They run inside only. The trusted side imports them for their names and marks, and calls none.
"""
