"""The work of a run: what there is to do, in which order, by which processes, and what was recorded of it."""
