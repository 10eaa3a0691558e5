"""What a run shows: numbers (`summary`), tables (`tables`), pictures (`plots`, which gathers `curves`, `examples` and
`latent_space`, all on `drawing`) and the page (`page`).

Nothing here is imported by `import scratchvae`; rich, matplotlib and the like load when a command draws something.
"""
