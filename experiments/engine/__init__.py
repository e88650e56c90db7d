"""The table engine: what a table file is, workers that train it, statistics and the rendered report. Imports no jax."""
