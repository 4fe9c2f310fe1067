"""Kinds of engines, one a file."""
