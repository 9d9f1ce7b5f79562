"""Files: what may be opened, atomic writes, locks, journals, JSON, checksums and output paths.

Knows nothing of what the files are for. Imports no torch.
"""
