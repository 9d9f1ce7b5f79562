"""The networks that vaectl supports, one file per family. Wan and Qwen-Image are `wan*.py`."""
