"""Handing spaces on and taking them in: everything that meets files from elsewhere, or leaves files for others.

The rest of the room knows nothing of it. Nothing that comes from elsewhere is believed before it has been judged here.
"""
