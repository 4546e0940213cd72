"""The text encoder of models that sample without text."""
