"""The objectives, one a file; see stages/objective.py."""
