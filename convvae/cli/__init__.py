"""The commands of `convvae`, each a function of the words after its name.

A command reads its flags, asks the library, and says what it did. Heavy imports are inside the
functions, so that `convvae --help` answers at once.
"""
