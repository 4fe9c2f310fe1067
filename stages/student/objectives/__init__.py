"""The objectives, one a file; see stages/student/objective.py."""
