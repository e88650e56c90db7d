"""One file per block family."""
