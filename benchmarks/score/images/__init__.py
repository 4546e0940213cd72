"""Images of any program: read, and scored under the protocols of the field's programs."""
