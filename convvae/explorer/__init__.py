"""A page that lets a person walk through the latent space of a model, live or as one file.

`Scene` is what the page shows, without a page: images, their latents, the planes of the map.
`page` draws it with Bokeh, `server` serves it to this machine alone, and `standalone` writes it as
a file that needs no server.
"""

from convvae.explorer.scene import Scene

__all__ = ["Scene"]
