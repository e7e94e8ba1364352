"""Images that are unlike the normal ones.

`scores` says how unlike, `calibration` how rare that is among normal images, and `report` is what
`convvae anomalies` prints, writes and draws.
"""
