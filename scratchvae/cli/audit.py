"""`scratchvae audit`: what a loss copied from elsewhere maximises: implied beta, implied variance, bound or not."""

from dataclasses import fields, replace
from typing import Annotated, Any

import typer

from scratchvae.audit import ERRORS, PRESETS, Audit, Recipe
from scratchvae.audit import audit as audit_recipe

from .options import Engine, Json, Quiet, Seed, Threads, use_threads
from .output import Output

LONGEST_WORD = 9  # in the two columns that are broken where the terminal has 80 columns
SETTINGS = tuple(field.name for field in fields(Recipe) if field.name != "code")


def audit(
    context: typer.Context,
    preset: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE", help="One that people copy; the options below change it.", show_default="all of them"
        ),
    ] = None,
    error: Annotated[str | None, typer.Option(help=f"Of the reconstruction: {' or '.join(ERRORS)}.")] = None,
    pixels: Annotated[str | None, typer.Option(help="The error over pixels: sum or mean.")] = None,
    batch: Annotated[str | None, typer.Option(help="The error over examples: sum or mean.")] = None,
    latents: Annotated[str | None, typer.Option(help="The KL over latent dimensions: sum or mean.")] = None,
    kl_batch: Annotated[
        str | None, typer.Option(help="The KL over examples: sum or mean.", show_default="as --batch")
    ] = None,
    reconstruction_weight: Annotated[
        float | None, typer.Option(help="What the reduced error is multiplied by.")
    ] = None,
    kl_weight: Annotated[float | None, typer.Option(help="What the reduced KL is multiplied by.")] = None,
    data_dim: Annotated[int | None, typer.Option(help="D, values in an example.")] = None,
    latent_dim: Annotated[int | None, typer.Option(help="Z, latent dimensions.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="B, examples in a batch.")] = None,
    grey: Annotated[
        bool | None, typer.Option("--grey/--binary", help="Pixels between 0 and 1, or only 0 and 1.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    threads: Threads = None,
    engine: Engine = "compiled",
) -> None:
    """What a loss stands for: its beta, the variance of its decoder, and whether the number is a bound on log p(x).

    Without a recipe and without options, all recipes are shown. Nothing is trained.

    [bold]Examples[/bold]
    scratchvae audit
    scratchvae audit pytorch-example
    scratchvae audit --pixels mean --kl-weight 0.00025 --data-dim 12288
    """
    output = Output(as_json, quiet)
    use_threads(threads)
    given = {name: context.params[name] for name in SETTINGS if context.params[name] is not None}
    if preset is None and not given:
        found = {name: audit_recipe(recipe) for name, recipe in PRESETS.items()}
        output.result(_all_recipes(found))
        output.record({"command": "audit", "presets": {name: one.as_dict() for name, one in found.items()}})
        return
    one = audit_recipe(_recipe(preset, given))
    output.result(_one_recipe(one))
    output.note(one.verdict)
    output.note(one.remark)
    output.record({"command": "audit", "preset": preset, **one.as_dict()})


def _recipe(preset: str | None, given: dict[str, Any]) -> Recipe:
    """A recipe with what is given in place of its own. Raises ValueError for one that nobody knows, or a setting that
    cannot be."""
    if preset is not None and preset not in PRESETS:
        raise ValueError(f"recipe is {preset!r}; expected one of {', '.join(PRESETS)}")
    recipe = PRESETS[preset] if preset else Recipe()
    if "batch" in given:
        given = {"kl_batch": given["batch"]} | given
    if "data_dim" in given and recipe.reconstruction_weight == recipe.data_dim:  # such code multiplies by D
        given = {"reconstruction_weight": float(given["data_dim"])} | given
    return replace(recipe, **given, code="") if given else recipe


def _all_recipes(found: dict[str, Audit]) -> Any:
    from rich import box
    from rich.table import Table

    title = "Losses that people copy, and what they maximise"
    look = {"box": box.SIMPLE_HEAD, "show_edge": False, "collapse_padding": True, "pad_edge": False}
    table = Table(title=title, title_justify="left", **look)  # type: ignore[arg-type]
    table.add_column("recipe", no_wrap=True)
    table.add_column("error", min_width=LONGEST_WORD)
    for title in ("D", "Z", "beta", "variance", "std"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("a bound?", min_width=LONGEST_WORD)
    for name, one in found.items():
        table.add_row(
            name,
            one.recipe.error.replace("-", " "),  # which may be broken there
            f"{one.recipe.data_dim:,}",
            str(one.recipe.latent_dim),
            f"{one.beta:.6g}",
            _number(one.variance),
            _number(one.standard_deviation),
            _short_verdict(one),
        )
    return table


def _short_verdict(one: Audit) -> str:
    if not one.is_bound:
        return "no: grey" if one.recipe.grey and one.kl_scale else "no"
    if not one.is_elbo:
        return "a looser one"
    if one.recipe.error == "cross-entropy":
        return "the ELBO" if one.scale == one.factor else "ELBO, rescaled"
    return "ELBO + constant" if one.scale == one.factor else "up to constants"


def _one_recipe(one: Audit) -> Any:
    from rich.table import Table

    recipe = one.recipe
    table = Table(show_header=False)
    table.add_column("name")
    table.add_column("value")
    over_pixels = f"{recipe.pixels} over {recipe.data_dim:,} pixels, {recipe.batch} over the batch"
    over_latents = f"{recipe.latents} over {recipe.latent_dim} latents, {recipe.kl_batch} over the batch"
    rows = {
        "code": recipe.code,
        "loss": f"{recipe.reconstruction_weight:g} * {recipe.error} error, {over_pixels}",
        "": f"+ {recipe.kl_weight:g} * KL, {over_latents}",
        "for one example": f"{one.error_scale:.6g} E + {one.kl_scale:.6g} KL, E and KL summed",
        "implied beta": f"{one.beta:.6g}" + ("  (at unit variance)" if recipe.error == "squared" else ""),
        "implied variance": _number(one.variance),
        "standard deviation": _number(one.standard_deviation),
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
