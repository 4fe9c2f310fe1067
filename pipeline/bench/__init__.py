"""`molsaki bench`: cases, processes that measure, tables."""
