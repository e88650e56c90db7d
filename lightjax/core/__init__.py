"""The transform contract and what everything else stands on."""
