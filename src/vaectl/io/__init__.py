"""Files: safe parsing, atomic writes, locks, journals, JSON, checksums and output paths.

Does not know what the files are for. Imports no torch.
"""
