"""A run's test as a task of another tool, by which anybody gets its numbers without this program."""
