"""Weights and models of other tools, in and out.

`reading` reads the files of other tools without running anything in them, `layouts` has their names
and their order of axes, `weights` makes models of them and back; `graphs` writes ONNX and programs
of torch.export, and `hub` is for the Hugging Face Hub.
"""
