"""The steps of `benchmarks/gpu.py`: one module each, with a function `run(context)` that reports rows."""
