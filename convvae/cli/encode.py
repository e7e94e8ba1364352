"""`convvae encode`: the numbers of every single image."""

from __future__ import annotations

from convvae.cli.common import (
    ImagesOptions,
    OutputOptions,
    binarize_seed,
    check_outputs,
    meant,
    open_model,
)
from convvae.cli.flags import parse
from convvae.config import ModelConfig, UserPath


class EncodeOptions(ImagesOptions, OutputOptions):
    """Write the latents, bound, KL and error of every image to a file."""

    out: UserPath
    """File to write: .npz, .parquet, or .npy of the codes mu alone."""


def encode(args: list[str]) -> None:
    """Write the latents, bound, KL and error of every image to a file."""
    options = parse(EncodeOptions, args, "convvae encode")
    vae, metadata = open_model(options)
    from convvae.data.progress import counting
    from convvae.evaluation import encoding_files
    from convvae.evaluation.encode import stream_encodings, stream_posterior_means
    from convvae.model.conditions import given_labels_of

    encoding_files.check(options.out)
    word = meant(options, metadata)
    check_outputs(options, [options.out], "out", model=options.model, data=word)
    source, drawn_by = options.images(metadata), binarize_seed(metadata)
    if options.limit is not None:
        source = source.first(options.limit)
    vae = given_labels_of(vae, source)
    protocol = {
        "model": options.model,
        "data": f"{source.name} ({source.split})",
        "images": len(source),
        "binarize_seed": drawn_by,
        "seed": options.seed,
        "mu": f"{vae.config.location} of q(z|x){_share(vae.config)}",
    }
    dims = vae.config.outline
    with counting("encoding", len(source)) as progress:
        if options.out.suffix == encoding_files.MEANS_ALONE:
            means = stream_posterior_means(vae, source, binarize_seed=drawn_by, progress=progress)
            encoding_files.write_means(options.out, (len(source), dims), means)
        else:
            parts = stream_encodings(
                vae, source, seed=options.seed, binarize_seed=drawn_by, progress=progress
            )
            encoding_files.write(options.out, source, dims, protocol, parts)
    print(f"wrote {options.out}: {len(source)} images of {protocol['data']}")


def _share(model: ModelConfig) -> str:
    """Which of a ladder's latents stand for an image; nothing where all do."""
    if model.outline == model.latent_dims:
        return ""
    return f", the first {model.outline:,} of {model.latent_dims:,} latents"
