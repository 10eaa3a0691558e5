"""What a run shows: the numbers (`summary`), the tables (`tables`), the pictures (`plots`, drawn with `drawing`) and the page (`page`).

Nothing here is imported by `import scratchvae`; rich, matplotlib and the like load when a command draws something.
"""
