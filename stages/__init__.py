"""The stages of the pipeline, a module each, and their mathematics in files of its own."""
