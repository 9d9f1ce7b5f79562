"""The networks that vaectl knows, a file for each family."""
