"""What can be done to a layer's output. Each perturbation is one class in one module of this folder.

Importing this package imports neither torch nor the rest of the diagnosis: the settings and the command line read the
names here.
"""

from __future__ import annotations

import importlib
import pkgutil

from .base import Draw, Perturb, Perturbation


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f".{_module.name}", __name__)

PERTURBATIONS: dict[str, type[Perturbation]] = {kind.name: kind for kind in Perturbation.__subclasses__()}

__all__ = ["PERTURBATIONS", "Draw", "Perturb", "Perturbation"]
