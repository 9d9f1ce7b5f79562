"""The sections of `benchmarks/performance.py`. Each yields what it has measured, row by row."""
