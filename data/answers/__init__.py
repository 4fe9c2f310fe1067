"""What a model or a data file writes for an answer, and which answer it is."""
