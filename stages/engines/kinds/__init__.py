"""The engines, one a file: `rationales.engine` is the file's name, with - for _, and the folder is the list of them.

A file declares `ENGINE`, which is called with an `EngineSetup` and gives an `Engine`, and `RESTARTS = True` where one
that dies is worth starting again. It is imported when it is asked for; `stages.engines.start` says how to install a
package that its import misses. A new engine is a file here, and its name in the list of tests/engines.py.
"""
