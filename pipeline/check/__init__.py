"""What there is to know about the questions of a run before anything is paid for."""
