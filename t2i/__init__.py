"""t2i: text-to-image models of all families, trained, sampled and scored under one roof."""

from pkgutil import extend_path

# From the root of a checkout this folder shadows an ordinary installation, whose other parts are still to be found.
__path__ = extend_path(__path__, __name__)
