"""All ops, one file a family. Every module of this folder is imported, so that a new file needs no entry anywhere."""

from __future__ import annotations

import importlib
import pkgutil

for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")
