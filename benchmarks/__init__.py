"""Measurements of convvae, alone and beside its peers: commands, `python -m benchmarks.NAME`."""
