"""`python -m pipeline` is `molsaki`: stages are started this way, whatever is on the PATH."""

from pipeline.cli.main import main

main()
