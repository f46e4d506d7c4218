"""Builds the data in model_db/ that comes from the installed transformers."""
