"""Decoded images on disk, memory-mapped.

`store` has an entry for every source, `ingest` reads a source into it once, by the processes of
`pool`, of which each is a `worker`.
"""
