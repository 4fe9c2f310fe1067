"""Rows of data sets that nobody has understood yet, and where they come from."""
