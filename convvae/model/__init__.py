"""The model, its bounds, its file.

`vae` is the VAE: encode, decode, prior. `objectives` is what training maximises and evaluation
reports, the ELBO first. `checkpoint` writes and reads model files; `run_folder` is what a training
leaves.
"""

from convvae.model.checkpoint import ModelMetadata, load_metadata, load_model, save_model
from convvae.model.objectives import Terms, elbo
from convvae.model.run_folder import RunFolder
from convvae.model.vae import VAE

__all__ = [
    "VAE",
    "ModelMetadata",
    "RunFolder",
    "Terms",
    "elbo",
    "load_metadata",
    "load_model",
    "save_model",
]
