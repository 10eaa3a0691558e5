"""`scratchvae gradcheck`: every hand-derived gradient against numbers that come from the loss alone."""

import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray

from scratchvae import VAE, GradientRow, check_gradients
from scratchvae.engine import ENGINES
from scratchvae.gradcheck import GATES
from scratchvae.likelihoods import LIKELIHOODS
from scratchvae.objectives import ELBO, IWAE, OBJECTIVES, Objective
from scratchvae.parameters import ACTIVATION_CODES
from scratchvae.posteriors import POSTERIORS
from scratchvae.reference.random import Stream, normals

from .options import PANEL, Json, Quiet, Seed, Threads, known_engine, use_threads
from .output import Output

DATA_DIM, HIDDEN, LATENT_DIM, EXAMPLES, SAMPLES = 4, (4, 3), 2, 2, 2
KINK_MARGIN = 0.03  # a finite difference must not step over relu's kink, nor that of free bits
SMALLEST_GRADIENT = 1e-2  # norm: the gates of finite differences leave room for rounding of a loss of about 10
FREE_BITS = 0.2
CHECKED: dict[str, Objective] = {  # every objective, and every setting of it that has a gradient of its own
    **{name: kind(num_samples=SAMPLES) for name, kind in OBJECTIVES.items()},
    "elbo-beta": ELBO(SAMPLES, beta=0.3),
    "elbo-free-bits": ELBO(SAMPLES, free_bits=FREE_BITS),
    "elbo-monte-carlo": ELBO(SAMPLES, beta=0.3, kl="monte-carlo"),
}
MOST_SEEDS = 2000
WORST = 12  # rows of the table


class Case(NamedTuple):
    """One model that is checked, named by what distinguishes it."""

    likelihood: str
    activation: str
    objective: str
    posterior: str


class Checked(NamedTuple):
    engine: str
    case: Case
    row: GradientRow


def gradcheck(
    every: Annotated[
        bool,
        typer.Option("--all", help="Every likelihood with every activation, every objective with every posterior."),
    ] = False,
    method: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(GATES)}; repeat for more.", show_default="all three")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    seed: Seed = 0,
    threads: Threads = None,
    engine: Annotated[
        str | None,
        typer.Option(
            callback=known_engine,
            help="Whose gradients: reference or compiled.",
            show_default="reference; both with --all",
            rich_help_panel=PANEL,
        ),
    ] = None,
) -> None:
    """Check the gradient of every parameter, tensor by tensor, in float64: ||analytic - numeric|| / ||numeric||.

    Complex step must agree to 1e-12, Richardson to 1e-9, central differences to 1e-7. Exit status 1 if one does not.

    [bold]Examples[/bold]
    scratchvae gradcheck
    scratchvae gradcheck --all --method complex --json
    """
    output = Output(as_json, quiet)
    use_threads(threads)
    methods = list(dict.fromkeys(method or GATES))
    for name in methods:
        if name not in GATES:
            raise ValueError(f"method is {name!r}; expected one of {', '.join(GATES)}")
    engines = [engine] if engine else list(ENGINES) if every else ["reference"]
    cases = list(dict.fromkeys(all_cases() if every else few_cases()))
    started = time.perf_counter()
    with output.working("checking gradients"):
        checked = [found for name in engines for case in cases for found in check(case, methods, name, seed)]
    seconds = time.perf_counter() - started
    passed = all(found.row.passed for found in checked)
    verdicts = {name: verdict([found for found in checked if found.row.method == name]) for name in methods}
    output.result(_verdict_table(verdicts))
    output.result(_worst_table(checked))
    said = "all passed" if passed else "FAILED"
    output.message(f"{len(checked)} checks of {' and '.join(engines)} gradients in {seconds:.1f} s: {said}")
    output.record(
        {
            "command": "gradcheck",
            "passed": passed,
            "engines": engines,
            "seed": seed,
            "seconds": seconds,
            "methods": verdicts,
            "rows": [{"engine": f.engine, **f.case._asdict(), **f.row._asdict()} for f in checked],
        }
    )
    if not passed:
        raise typer.Exit(1)


def all_cases() -> Iterator[Case]:
    """Every likelihood with every activation, under both bounds; every objective on every posterior."""
    for likelihood in LIKELIHOODS:
        for activation in ACTIVATION_CODES:
            for objective in (ELBO.name, IWAE.name):
                yield Case(likelihood, activation, objective, "diagonal")
    for posterior in POSTERIORS:
        for objective in CHECKED:
            yield Case("bernoulli", "tanh", objective, posterior)


def few_cases() -> Iterator[Case]:
    """Every likelihood, every activation, every objective and every posterior at least once."""
    parts = [list(part) for part in (LIKELIHOODS, ACTIVATION_CODES, CHECKED, POSTERIORS)]
    for index in range(max(len(part) for part in parts)):
        yield Case(*(part[index % len(part)] for part in parts))


def check(case: Case, methods: Sequence[str], engine: str, seed: int) -> Iterator[Checked]:
    """Every parameter of one case by every method."""
    vae, x, eps, objective = model_away_from_kinks(case, engine, seed)
    for method in methods:
        for row in check_gradients(vae, x, eps, objective=objective, method=method):
            yield Checked(engine, case, row)


def model_away_from_kinks(case: Case, engine: str, seed: int) -> tuple[VAE, NDArray, NDArray, Objective]:
    """A small random model and data, in float64, at the first seed where no relu is near its kink and no tensor idle.

    A finite difference that steps over a kink, relu's or that of free bits, is not the derivative; where every relu of
    a layer is off, or all pixels are, a gradient is zero everywhere and proves nothing; and where it is small, a finite
    difference has few digits of it. None of these is a fault of the gradient, so such points are passed by.
    """
    objective = CHECKED[case.objective]
    for attempt in range(seed, seed + MOST_SEEDS):
        vae, x, eps = _random_model(case, engine, attempt % 2**64)
        if _far_from_kinks(vae, x, eps) and _has_gradients(vae, x, eps, objective):
            return vae, x, eps, objective
    raise ValueError(f"no point away from kinks in {MOST_SEEDS} seeds from {seed}")


def _random_model(case: Case, engine: str, seed: int) -> tuple[VAE, NDArray, NDArray]:
    """Weights, biases and the likelihood's own parameters random, data drawn from the model, and noise."""
    vae = VAE(
        DATA_DIM,
        LATENT_DIM,
        HIDDEN,
        case.likelihood,
        case.activation,
        "float64",
        engine,
        seed,
        posterior=case.posterior,
    )
    for index, (name, array) in enumerate(vae.parameters.items()):
        if not name.endswith(".weight"):
            noise = normals(seed, Stream.WEIGHTS, 1000 + index, np.arange(1), array.size)
            array[...] += 0.3 * noise.reshape(array.shape)  # biases are zero, but a scale is not
    rows = np.arange(EXAMPLES)
    x = vae.sample(EXAMPLES, seed)
    eps = normals(seed, Stream.POSTERIOR, 0, rows, SAMPLES * LATENT_DIM).reshape(EXAMPLES, SAMPLES, LATENT_DIM)
    return vae, x, eps.astype(np.float64)


def _far_from_kinks(vae: VAE, x: NDArray, eps: NDArray) -> bool:
    """Whether each relu's input is at least `KINK_MARGIN` from 0, each layer has a unit on, no KL is at its floor."""
    sampled, _ = vae.forward(vae._batch(x), eps)
    kl, _ = sampled.posterior.kl_per_dimension_forward(sampled.head)
    if np.abs(kl - FREE_BITS).min() < KINK_MARGIN:
        return False
    return vae.activation != "relu" or _relus_are_far(vae, x, sampled.z.reshape(-1, vae.latent_dim))


def _has_gradients(vae: VAE, x: NDArray, eps: NDArray, objective: Objective) -> bool:
    """Whether the gradient of each parameter is of a size that rounding in the loss does not hide."""
    _, gradients = vae.value_and_grad(x, eps, objective)
    return min(float(np.linalg.norm(gradient)) for gradient in gradients.values()) > SMALLEST_GRADIENT


def _relus_are_far(vae: VAE, x: NDArray, z: NDArray) -> bool:
    for prefix, h in (("encoder", vae.likelihood.encoder_input(x)), ("decoder", z)):
        for layer in vae.parameters.network(prefix, vae.activation).layers[:-1]:
            a = h @ layer.weight + layer.bias
            if np.abs(a).min() < KINK_MARGIN or not (a > 0).any():
                return False
            h = np.maximum(a, 0.0)
    return True


def verdict(checked: Sequence[Checked]) -> dict[str, Any]:
    """What one method says of all tensors it looked at."""
    worst = max(checked, key=lambda found: found.row.error)
    return {
        "tensors": len(checked),
        "failed": sum(not found.row.passed for found in checked),
        "gate": worst.row.gate,
        "worst": worst.row.error,
        "worst_at": {"engine": worst.engine, **worst.case._asdict(), "parameter": worst.row.parameter},
        "passed": all(found.row.passed for found in checked),
    }


def _verdict_table(verdicts: dict[str, dict[str, Any]]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(
        "method", title="Norm-relative error of each tensor's gradient", title_justify="left", box=box.SIMPLE_HEAD
    )
    for title in ("tensors", "gate", "worst", "failed"):
        table.add_column(title, justify="right")
    for name, found in verdicts.items():
        numbers = str(found["tensors"]), f"{found['gate']:.0e}", f"{found['worst']:.1e}", str(found["failed"])
        table.add_row(name, *numbers)
    return table


def _worst_table(checked: Sequence[Checked]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table("parameter", "model", "method", title="The worst", title_justify="left", box=box.SIMPLE_HEAD)
    for title in ("error", "gate"):
        table.add_column(title, justify="right")
    table.add_column("")
    for engine, case, row in sorted(checked, key=lambda found: -found.row.error / found.row.gate)[:WORST]:
        said = "ok" if row.passed else "FAILED: zero everywhere" if row.is_idle else "FAILED"
        table.add_row(row.parameter, " ".join((*case, engine)), row.method, f"{row.error:.1e}", f"{row.gate:.0e}", said)
    return table
