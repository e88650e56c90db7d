"""The coded file of a compressed network: what every table calls its size is the length of this file."""
from lightjax.artifact.container import ArtifactError
from lightjax.artifact.files import Stored, from_bytes, load, save, to_bytes, verify
from lightjax.artifact.sizes import ArraySize, Sizes

__all__ = ['ArraySize', 'ArtifactError', 'Sizes', 'Stored', 'from_bytes', 'load', 'save', 'to_bytes', 'verify']
