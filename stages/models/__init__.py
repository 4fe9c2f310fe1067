"""Models and their tokenizers: which one is meant, how large it is, and how it gets into memory."""
