"""Runs and tables: `python -m experiments` lists the commands."""
