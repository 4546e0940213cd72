"""Settings of the built-in models with which a step takes milliseconds, by name."""

ENCODER = ("encoder.width=16", "encoder.heads=2")
DIFFUSION = (
    "unet.channels=[8,16]",
    "unet.groups=4",
    "unet.head_width=4",
    "unet.text_map=8",
    "sampler.steps=2",
)
GAN = ("nf=4", "z_dim=8")
PRIOR = ("transformer.width=16", "transformer.layers=1", "transformer.heads=2")
SMALL = {
    "ldm": (
        *DIFFUSION, *ENCODER, "autoencoder.channels=[8]", "autoencoder.groups=4",
        "autoencoder.batch_size=3",
        "autoencoder.latent_channels=4",
    ),
    "ddpm": (*DIFFUSION, *ENCODER),
    "ddim": (*DIFFUSION, *ENCODER),
    "edm": (*DIFFUSION, *ENCODER),
    "imagen": (
        *ENCODER, *(f"{part}.unet.{key}" for part in ("base", "upsampler") for key in (
            "channels=[8,16]", "groups=4", "head_width=4",
        )),
        "base.unet.text_map=8", "sampler.base.steps=2", "sampler.upsampler.steps=2",
    ),
    "deepfloyd": ("sampler.steps=8",),  # smaller ones round differently in smaller batches
    "dalle2": (
        *ENCODER, "clip.width=16", "clip.heads=2", "clip.layers=1", "prior.width=16",
        "prior.heads=2", "prior.layers=1", "prior.training.batch_size=4",
        *(
            f"{part}.unet.{key}"
            for part in ("decoder", "upsampler")
            for key in ("channels=[8,16]", "groups=4", "head_width=4")
        ),
        "decoder.unet.text_map=8",
        *(f"sampler.samplers.{part}.steps=2" for part in ("prior", "decoder", "upsampler")),
    ),
    "upsampler": (
        *ENCODER, "unet.channels=[8,16]", "unet.groups=4", "unet.head_width=4", "sampler.steps=2",
    ),
    "glide": (
        *ENCODER, "base.unet.channels=[8,16]", "base.unet.groups=4", "base.unet.head_width=4",
        "base.unet.text_map=8", "base.transformer.width=16", "upsampler.unet.channels=[8,16]",
        "upsampler.unet.groups=4", "upsampler.unet.head_width=4", "upsampler.transformer.width=16",
        "sampler.samplers.base.steps=2", "sampler.samplers.upsampler.steps=2",
    ),
    "guide": (*ENCODER, "adm.base=32", "adm.head_width=16", "width=8", "compared=4"),
    "dfgan": (*GAN, *ENCODER, "matcher_width=8"),
    "clipvqgan": ("cutouts.count=2", "sampler.steps=3"),
    "gan": ("z_dim=8", "widths_g=[8]", "widths_d=[8]"),
    "cgan": (
        *ENCODER, "z_dim=8", "widths_text_g=[8]", "widths_g=[8]", "widths_d=[8]",
        "matcher_width=8", "recalibrate=2",
    ),
    "gancls": (
        *ENCODER, "ngf=4", "ndf=4", "nt=8", "z_dim=8", "matcher_width=8", "recalibrate=2",
    ),
    "cvaegan": (*ENCODER, "gf=4", "width=4", "z_dim=8", "matcher_width=8"),
    "galip": (
        *GAN, *ENCODER, "clip.width=16", "clip.heads=2", "bridge_width=8", "bridge_middle=4",
        "judge_width=8",
        "assessor_width=8",
    ),
    "attngan": (
        "gf=4", "df=4", "z_dim=8", "c_dim=8", "image_encoder.width=8", "damsm.batch_size=6",
        "recalibrate=2",
        "encoder.name=damsm", "encoder.width=16", "encoder.embedding=16",
    ),
    "dmgan": (
        "gf=4", "df=4", "z_dim=8", "c_dim=8", "image_encoder.width=8", "damsm.batch_size=6",
        "recalibrate=2",
        "encoder.name=damsm", "encoder.width=16", "encoder.embedding=16",
    ),
    "stackganv2": (*ENCODER, "gf=4", "df=4", "z_dim=8", "c_dim=8", "matcher_width=8", "recalibrate=2"),  # noqa: E501
    "biggan": (*ENCODER, "ch=4", "z_dim=8", "shared=8", "matcher_width=8", "recalibrate=2"),
    "xmcgan": (*ENCODER, "gf=4", "df=4", "z_dim=8", "matcher_width=8", "recalibrate=2"),
    "stylegan": (
        *ENCODER, "z_dim=8", "w_dim=8", "channel_base=64", "channel_max=8", "matcher_width=8",
        "r1_every=1",
    ),
    "stackgan": (*ENCODER, "gf=4", "df=4", "z_dim=8", "c_dim=8", "matcher_width=8", "recalibrate=2"),  # noqa: E501
    "aligndraw": (
        *ENCODER, "draw_steps=2", "language=8", "align=8", "hidden=16", "z_dim=8",
        "sharpen.width=8", "sharpen.df=8",
    ),
    "dalle": (
        "tokenizer.vocabulary=16", "tokenizer.dvae.channels=8", *PRIOR,
    ),
    "flowmatching": (
        *ENCODER, "autoencoder.channels=[8]", "autoencoder.groups=4", "unet.channels=[8,16]",
        "unet.groups=4", "unet.text_map=8",
    ),
    "glow": (*ENCODER, "depth=2", "width=8", "text.text_map=8"),
    "ncsn": (*ENCODER, "network.ngf=8", "network.text_map=8"),
    "parti": (
        *ENCODER, "decoder_layers=1", "width=16", "hidden=32", "heads=2", "text.text_map=8",
        "tokenizer.vocabulary=16", *(
            f"tokenizer.vit.{part}.{key}" for part in ("encoder", "decoder") for key in (
                "layers=1", "width=16", "heads=2", "head_width=8", "hidden=32",
            )
        ),
    ),
    "realnvp": (*ENCODER, "width=4", "blocks=1", "text.text_map=8"),
    "scoresde": (*DIFFUSION, *ENCODER),
    "tarflow": (
        *ENCODER, "width=16", "head_width=8", "layers=[1,1]", "text.text_map=8",
    ),
    "vae": (*ENCODER, "deep.width=16", "deep.z=4", "text.text_map=8"),
    "vqdiffusion": (
        *ENCODER, "width=16", "layers=1", "heads=2", "text.text_map=8", "timesteps=8",
        "tokenizer.vocabulary=16", "tokenizer.vqgan.channels=16", "tokenizer.vqgan.groups=4",
        "tokenizer.vqgan.latent_channels=8",
    ),
    "vqgan": (
        *ENCODER, "tokenizer.vocabulary=16", "tokenizer.vqgan.channels=16",
        "tokenizer.vqgan.groups=4", "tokenizer.vqgan.latent_channels=8", *PRIOR, "text.text_map=8",
    ),
    "vqvae": (
        *ENCODER, "tokenizer.vocabulary=16", "tokenizer.vqvae.channels=16",
        "tokenizer.vqvae.residual_channels=8", *PRIOR, "text.text_map=8",
    ),
}  # fmt: skip
