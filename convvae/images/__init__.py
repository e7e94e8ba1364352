"""Pictures as arrays, without a model.

`sheets` lays images out as PNG and GIF files, `ssim` says how alike two images look, `geometry`
which part of an image is kept at another size.
"""
