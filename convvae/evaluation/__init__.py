"""What a trained model is worth on images, and what it has learnt.

`evaluate` gives every number at once and `scorecard` prints them; `bounds`, `reconstruction`,
`sample_quality` and `probes` measure one thing each; `encode` takes images through the model in
batches, and `encoding_files` writes what comes out; `latents` is the latent space as arrays;
`fitted_priors` replace the prior; `doctor` says what is wrong.
"""
