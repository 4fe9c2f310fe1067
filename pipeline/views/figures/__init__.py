"""The figures of `molsaki plot`, one file a figure: what it says, its options, its numbers and how it is drawn.

A file declares `PLOT`, a `pipeline.views.plot.Plot`; its name is the command's. To add a figure, add a file and its
test, nothing else: `molsaki plot` lists this folder. Files are imported for their help too, so that numpy, zarr and
matplotlib are imported inside the functions that need them.
"""
