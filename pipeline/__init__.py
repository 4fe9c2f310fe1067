"""Command line, configuration, order of work and provenance. No mathematics."""
