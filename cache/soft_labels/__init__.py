"""Soft labels: what a teacher expected at each place of a rationale, written, read, judged, and mapped for training."""
