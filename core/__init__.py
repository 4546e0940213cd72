"""t2i.core: interfaces, families, registry, runs, models, training engine. `import t2i` has what is public of it."""
