"""The networks that vaectl supports, one file per family."""
