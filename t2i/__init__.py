"""t2i: text-to-image models of all families, trained, sampled and scored under one roof."""
