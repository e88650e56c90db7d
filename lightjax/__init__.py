"""lightjax: efficient networks and compression as pure functions, for JAX research."""
