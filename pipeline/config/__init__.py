"""The configuration: a YAML file, its schema, the matrix in it, and the file that a beginner starts from."""
