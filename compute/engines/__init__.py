"""Engines: one module each, imported when first asked for (see compute.program.ENGINES)."""
