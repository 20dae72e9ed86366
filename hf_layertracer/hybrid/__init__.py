"""Models made of layers of several donors, and of attention replaced by state-space mixers.

Importing this package imports none of its modules: the command line reads settings here.
"""
