"""What a caller gives as frames, video or latent: how messages name it. Imports nothing."""

LARGEST = 10.0
"""A video with larger values is not in [-1, 1]. A decoded video may exceed 1, and normal noise may exceed 5."""


def beyond(peak: float) -> str:
    """Describe values with the largest magnitude `peak`, for a message; "" for those of a video in [-1, 1]."""
    return "" if peak <= LARGEST else " with NaN" if peak != peak else f" with values up to {peak:g}"


def describe(value: object) -> str:
    """Describe a tensor, an array, a list or any other value: type, dtype and shape, in a few words."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        kind = "NumPy array" if type(value).__module__ == "numpy" else "tensor"
        return f"a {kind} of {str(dtype).removeprefix('torch.')} {tuple(shape)}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}" + (f", the first {describe(value[0])}" if value else "")
    return f"a value of type {type(value).__name__}"
