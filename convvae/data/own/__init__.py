"""A user's own images.

`folders`, `archives`, `arrays`, `tables` and `hub` give the items of a source each; `load` has them
decoded into the cache, divides them into training and test images, and says what was chosen.
"""
