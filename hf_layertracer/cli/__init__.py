"""The command line: `layertracer`.

A module here that has a `command` adds one, under the module's name: a function, or a `typer.Typer` with commands of
its own. Modules import what takes long (torch, transformers) when their command runs.
"""
