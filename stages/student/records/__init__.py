"""Training records: tokenized once for all students, and read from a memory map."""
