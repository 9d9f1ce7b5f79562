"""Files: what may be opened, writing all or nothing, locks, JSON and lines of JSON.

Knows nothing of what the files are for. Imports no torch.
"""
