"""Experiments: launchers, configs, tables and benchmarks; `python -m experiments` lists the commands."""
import os

# Before jax is imported: XLA's C++ log reports every executable that comes from the compilation cache as made for
# another machine, at length, since the tuning hints of its target are no features of a processor.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
