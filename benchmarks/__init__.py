"""Measurements of convvae against its peers; each is a command, `python -m benchmarks.NAME`."""
