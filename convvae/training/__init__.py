"""From settings and images to a run folder.

`run` is the whole course of a training, `loop` its steps, `learner` what changes in them, and
`schedules` says how fast: the learning rate is set there. `callbacks` is what may watch a run.
"""
