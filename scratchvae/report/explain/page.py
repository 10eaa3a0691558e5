# ruff: noqa: RUF001, E501
"""How the answers are shown: page.html with its numbers, tables, formulas, pictures and code filled in. One file."""

import inspect
import platform
import string
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal  # of numbers too large for a float
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import scratchvae
from scratchvae import audit as audit_module
from scratchvae.data.checks import is_grey
from scratchvae.evidence import annealed, gap, importance, quadrature, surgery
from scratchvae.objectives import ELBO
from scratchvae.reference import gaussian, gaussian_likelihood
from scratchvae.reference.importance import importance_bound_forward
from scratchvae.reference.posterior import log_ratio_forward
from scratchvae.vae import VAE

from .. import plots
from ..page import figure as picture
from ..summary import how_many
from . import figures, formulas, gradient_noise, identity, known_density, movement, sources
from .answers import SURGERY_EXAMPLES, Answers
from .subject import Settings, Subject

TITLE = "log p(x), the ELBO and two KLs"
TABLE_ROWS = 8  # of the identity's table; the JSON object has them all


def render(subject: Subject, answers: Answers, settings: Settings, command: str) -> str:
    """The whole page: no script, nothing from a network, light or dark as the reader's system says."""
    resources = files(__package__)
    body = formulas.fill(resources.joinpath("page.html").read_text(encoding="utf-8"))
    style = resources.joinpath("page.css").read_text(encoding="utf-8")
    code = {name: sources.html(shown) for name, shown in excerpts().items()}
    code["surgery"] = code["aggregate_kl" if answers.surgery_is_integral else "information"]
    below = captions(subject)
    fields = vars(answers) | {
        "subject": subject,
        "settings": settings,
        "figures": {name: drawn(name, draw, below[name]) for name, draw in drawings(subject, answers).items()},
        "tables": tables(answers),
        "code": code,
        "words": words(subject, answers, settings, command),
    }
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{TITLE}</title><style>{style}</style></head>\n<body>\n{Filler().vformat(body, (), fields)}</body></html>\n"
    )


class Filler(string.Formatter):
    """Fills in fields such as {identity.worst_residual:.1e}; numbers are written as a reader expects them."""

    def format_field(self, value: Any, spec: str) -> str:
        return written(value, spec) if spec else str(value)


def written(value: Any, spec: str) -> str:
    """A number as HTML: a true minus sign, and powers of ten as such."""
    text = "0" if value == 0 and spec.endswith("e") else format(value, spec)
    if "e" in text and any(character.isdigit() for character in text):
        mantissa, _, exponent = text.partition("e")
        power = str(int(exponent)).replace("-", "−")
        times = "" if mantissa in ("1", "-1") else f"{mantissa.removeprefix('-')} × "
        text = f"{'-' if mantissa.startswith('-') else ''}{times}10<sup>{power}</sup>"
    if not any(digit in text for digit in "123456789"):
        text = text.removeprefix("-")  # what rounds to nothing has no sign
    return text.replace("-", "−")


# --- pictures ---------------------------------------------------------------------------------------------------------


def drawings(subject: Subject, answers: Answers) -> dict[str, Callable[[], Figure]]:
    """Every picture of the page under its name, ready to be drawn under a style."""
    return {
        "model": lambda: figures.the_model(subject),
        "identity": lambda: figures.identity(answers.identity),
        "forms": lambda: figures.forms(answers.forms),
        "movement": lambda: figures.movement(answers.movement),
        "shapes": lambda: figures.shapes(answers.shapes, subject),
        "two_divergences": lambda: figures.two_divergences(answers.identity, subject),
        "mixture": lambda: figures.mixture(answers.mixture),
        "which": lambda: figures.which_density(answers.which),
        "estimators": lambda: figures.estimators(answers.estimators),
        "gradients": lambda: figures.gradient_noise(answers.gradients),
        "squared": lambda: figures.squared_error(answers.squared),
    }


CAPTIONS = {
    "identity": "Left: the orange bar from each ELBO (dot) up to log p(x) (dash) is as long as the separately computed KL. "
    "Right: by how much the three fail to add up, on a logarithmic scale; what is 1e-16 or less stands at the bottom. The dashed "
    "line is the tolerance that was asked for.",
    "forms": "Left: running averages over draws of z for one image. All come to the dashed line, at different speeds. "
    "Right: the standard deviation of a single draw, mean over images.",
    "movement": "The line with squares is log p(x), the one with dots the ELBO, the shaded space between them the gap. Left, only the encoder "
    "is trained: the line is flat and the space closes. Right, only the decoder is trained: the line itself moves.",
    "two_divergences": "Left: an image can be far from the prior and well inferred, or the other way round. Right: the two have "
    "different sizes and different jobs.",
    "mixture": "Top: the density of some of the mixtures, with more and more components; circles are their centres, larger for more weight. "
    "Bottom: how far its logarithm is from log p(x) by integration. Once the components overlap, the error falls: on a line at a stroke, down to that of the integration.",
    "which": "Top: nothing rises above minus the entropy. The upper band is the model's fault, the lower the encoder's. "
    "Bottom: the density that the data come from, and the model's, on the same scale of colour.",
    "estimators": "Left: estimate minus truth, 0 is right, bars are two standard errors. The vertical scale is linear within 0.1 nats of "
    "0 and logarithmic beyond. Right: importance-weighted bounds of the model above, and its exact log p(x).",
    "gradients": "Left: the distribution of a single draw's gradient for one image. All three have the same mean; tails beyond the frame are "
    "cut off. Right: draws that must be averaged for the noise of one reparameterized draw.",
    "squared": "Left: the variance of the digits along their principal directions. A decoder with variance s² keeps the directions above its line, "
    "at most as many as it has latent units (dotted). Right: log p(x) of the best linear model for each variance.",
}


def captions(subject: Subject) -> Mapping[str, str]:
    """What stands below every picture; below those of z, by how many dimensions it has."""
    latent_dim = subject.vae.latent_dim
    row = ", a row for each label" if subject.labels is not None else ""
    where = {1: row, 2: "", 3: ", by the first two of three latent dimensions"}[latent_dim]
    if latent_dim == 1:
        marks, place, on, lines, scale = "lines", "Below, ", "a line", "dashed", "."
    else:
        marks, place, on, lines = "circles", "Beside it, ", "a grid", "as ellipses at one and two standard deviations"
        scale = " and the same scale of colour."
    summed = " The third of the latent dimensions is summed out." if latent_dim == 3 else ""
    decoded = f" {place}the mean of p(x|z) on {on} of z: each point is a picture, and the density p(x) is made of all of them."
    return CAPTIONS | {
        "model": f"Where the encoder puts images it has not been trained on{where}; the dotted {marks} are one and two standard "
        f"deviations of the prior.{'' if subject.image_shape is None else decoded}",
        "shapes": f"Small gaps on the left, large ones on the right. Middle row: the true posterior, with q drawn over it, {lines}. "
        f"Bottom row: q, on the same axes{scale}{summed}",
    }


RASTER = ("model", "shapes", "mixture", "which")  # pictures with images or densities in them


def drawn(name: str, draw: Callable[[], Figure], caption: str) -> str:
    """A picture for light and dark pages, with its caption."""
    kind = "png" if name in RASTER else "svg"
    return picture(plots.light_and_dark(draw, kind), "svg+xml" if kind == "svg" else "png", caption, caption)


# --- code -------------------------------------------------------------------------------------------------------------


def excerpts() -> dict[str, sources.Excerpt]:
    """The lines of code that stand beside the formulas."""
    take = sources.excerpt
    return {
        "residual": take(property_code(quadrature.Quadrature, "residual"), "return"),
        "forward": take(VAE.forward, "head, encoder", "reconstruction ="),
        "log_joint": take(quadrature._log_joint, "out, _", "table["),
        "log_integral": take(quadrature._log_sum, "terms =", "return"),
        "elbo_integral": take(quadrature._elbo_integral, "# nodes u", "return log_f"),
        "forms": take(identity.forms, "exact = (", ")"),
        "kl": take(gaussian.kl_to_prior_forward, "growth =", "kl ="),
        "elbo_objective": take(ELBO.evaluate, "value ="),
        "freeze": take(movement.freeze, "for name", "array[...]"),
        "posterior": take(quadrature.posterior_on_grid, "table =", "log_density ="),
        "best": take(gap.elbo_and_gradient, "z, kl, posterior", "return"),
        "kl_to_posterior": take(quadrature._integrate_one, "# KL(q", "kl ="),
        "aggregate_kl": take(surgery._aggregate_kl, "# the mass of q", "return"),
        "information": take(surgery._pointwise_information, "# log_density", "information[own]"),
        "mixture_weights": take(known_density.Mixture.over_grid, "weight =", "return"),
        "mixture": take(known_density.Mixture.log_density, "return log_sum"),
        "known_means": take(known_density.which_density, "log_evidence, elbo, gap = terms", "rows.append"),
        "known_terms": take(known_density.terms_on, "log_evidence =", "gap = _expected"),
        "known_ratio": take(known_density._expected_log_ratio, "z, _ =", "parts.append"),
        "importance": take(VAE.log_weights, "logvar =", "return"),
        "log_ratio": take(log_ratio_forward, "return"),
        "bound": take(importance_bound_forward, "total, weights", "return"),
        "prior": take(importance.prior_log_weights, "return"),
        "annealing": take(annealed.Annealing.walk, "# log f_beta", "log_weights +="),
        "score": take(gradient_noise.score_function_draws, "reward = vae", "return"),
        "reparameterize": take(gaussian.reparameterize_forward, "std =", "z ="),
        "gaussian": take(gaussian_likelihood.gaussian_log_likelihood_forward, "inverse_std =", "log_likelihood ="),
        "audit": take(audit_module.audit, "c = recipe", "return"),
        "variance": take(property_code(audit_module.Audit, "variance"), "return"),
    }


def property_code(owner: type, name: str) -> Callable[..., Any]:
    """The function behind a property."""
    getter: Callable[..., Any] = inspect.getattr_static(owner, name).fget
    return getter


# --- tables -----------------------------------------------------------------------------------------------------------


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], caption: str, kind: str = "table") -> str:
    """Titles may have a unit after a newline; cells are HTML; kind: its classes in page.css."""
    heads = "".join(
        f"<th scope=col>{title.partition(chr(10))[0]}"
        + (f"<small>{title.partition(chr(10))[2]}</small>" if "\n" in title else "")
        + "</th>"
        for title in titles
    )
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<figure class="{kind}"><div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def tables(answers: Answers) -> dict[str, str]:
    """Every table of the page under its name."""
    return {
        "identity": _identity_table(answers),
        "forms": _forms_table(answers),
        "movement": _movement_table(answers),
        "shapes": _shapes_table(answers),
        "which": _which_table(answers),
        "estimators": _estimators_table(answers),
        "bounds": _bounds_table(answers),
        "squared": _squared_table(answers),
    }


def _identity_table(answers: Answers) -> str:
    found = answers.identity
    shown = np.argsort(found.kl_to_posterior)[:: max(1, found.examples // TABLE_ROWS)][:TABLE_ROWS]
    rows = [
        [
            f"image {found.rows[i]}",
            *(written(values[i], ".10f") for values in (found.log_evidence, found.elbo, found.kl_to_posterior)),
            written(found.residual[i], ".1e"),
        ]
        for i in shown
    ]
    titles = ["held-out", "log p(x)\nnats", "ELBO\nnats", "KL(q ‖ p(z|x))\nnats", "residual\nnats"]
    return table(titles, rows, "Images in order of their gap. residual = log p(x) − ELBO − KL.")


def _forms_table(answers: Answers) -> str:
    found = answers.forms
    rows = []
    for index, name in enumerate(found.names):
        sampled = index < len(found.sampled)
        rows.append(
            [
                escape(name),
                written(found.means[index], ".10f"),
                f"{written(found.sampled_means[index], '.4f')} ± {found.sampled_errors[index]:.4f}" if sampled else "–",
                written(found.mean_deviations[index], ".3f") if sampled else "–",
            ]
        )
    titles = [
        "form",
        "by integration\nnats, mean",
        f"from {found.samples:,} draws\nnats, ± s.e.",
        "noise of a draw\nnats",
    ]
    return table(titles, rows, "The same number four times.")


def _movement_table(answers: Answers) -> str:
    rows = []
    for letter, frozen, phase in (("φ", "θ", answers.movement.phi), ("θ", "φ", answers.movement.theta)):
        for look in sorted({0, 1, len(phase.steps) // 2, len(phase.steps) - 1}):
            values = [written(value, ".10f") for value in phase.means(look)]
            rows.append([f"{letter} moves, {frozen} frozen", f"{phase.steps[look]:,}", *values])
        change = written(phase.largest_change, ".1e" if phase.largest_change < 1e-3 else ".3f")
        rows.append([f"<b>largest change, {letter} moving</b>", "", f"<b>{change}</b>", "", ""])
    titles = ["", "steps", "log p(x)\nnats, mean", "ELBO\nnats, mean", "gap\nnats, mean"]
    caption = f"Means over {how_many(answers.movement.examples, 'held-out image')}; the largest change is that of a single image."
    return table(titles, rows, caption)


def _shapes_table(answers: Answers) -> str:
    rows = []
    for one in answers.shapes.shapes:
        name = f"image {one.row}" if one.label is None else f"image {one.row}, a {escape(str(one.label))}"
        values = one.gap, one.approximation_gap, one.amortization_gap
        rows.append([name, *(written(value, ".4f") for value in values)])
    titles = ["held-out", "gap\nnats", "of the family\napproximation", "of the encoder\namortization"]
    caption = "gap = approximation + amortization."
    if len(answers.shapes.smallest.mu) > 1:
        titles.append("correlation\nof the posterior")
        for row, one in zip(rows, answers.shapes.shapes, strict=True):
            row.append(written(one.posterior_correlation, ".2f"))
        caption += " A diagonal q has no correlation."
    return table(titles, rows, caption)


def _which_table(answers: Answers) -> str:
    found = answers.which
    rows = [
        [
            str(epoch),
            *(
                written(v, ".5f")
                for v in (-found.entropy, found.kl[i], found.log_evidence[i], found.gap[i], found.elbo[i])
            ),
            written(found.residual[i], ".0e"),
        ]
        for i, epoch in enumerate(found.epochs)
    ]
    titles = ["epoch", "−entropy", "KL(data ‖ model)", "mean log p(x)", "mean gap", "mean ELBO", "residual"]
    return table(titles, rows, "In nats. residual = mean ELBO − (−entropy − KL − mean gap).", "table narrow")


def _estimators_table(answers: Answers) -> str:
    found = answers.estimators
    rows = []
    for i, latent_dim in enumerate(found.latent_dims):
        cells = [str(latent_dim), written(found.exact[i], ".2f"), written(found.gap[i], ".3f")]
        for method in range(len(found.names)):
            bias, digits = found.bias[method, i], ".3f" if abs(found.bias[method, i]) < 10 else ".1f"
            cells += [
                f"{written(bias, digits)} ± {format(found.error[method, i], digits)}",
                written(found.claimed[method, i], ".3f"),
            ]
        rows.append(cells)
    titles = ["Z", "log p(x)\nexact", "gap\nof q", "prior\nerror", "\nclaimed", "importance\nerror", "\nclaimed",
              "annealing\nerror", "\nclaimed"]  # fmt: skip
    caption = (
        f"In nats, means over {found.examples} images, ± standard error over images. “Claimed” is the standard error that the "
        "method reports from its own samples."
    )
    return table(titles, rows, caption, "table narrow")


def _bounds_table(answers: Answers) -> str:
    found = answers.estimators.bounds
    rows = [["ELBO, exact", written(found.elbo, ".5f"), ""]]
    rows += [
        [f"L<sub>{k:,}</sub>", written(value, ".5f"), f"{error:.5f}"]
        for k, value, error in zip(found.samples, found.values, found.errors, strict=True)
    ]
    rows.append(["log p(x), exact", written(found.log_evidence, ".5f"), ""])
    return table(
        ["bound", "nats, mean", "standard error\nof the draws"],
        rows,
        "On average over draws each is at most the next. On the same images of the model above: the errors are of draws of z, "
        "not of the choice of images.",
    )


def _squared_table(answers: Answers) -> str:
    found = answers.squared
    rows = [
        [
            "learned",
            written(found.best_variance, ".4g"),
            written(found.best_deviation, ".3f"),
            f"{int((found.eigenvalues[: found.latent_dim] > found.best_variance).sum())} of {found.latent_dim}",
            written(found.best_log_evidence, ".2f"),
        ]
    ]
    for one in found.implied:
        rows.append(
            [
                f"{escape(one.name)}<br><code>{escape(one.code)}</code>",
                written(one.variance, ".4g"),
                written(one.variance**0.5, ".3f"),
                f"{one.active} of {found.latent_dim}",
                written(one.log_evidence, ".2f"),
            ]
        )
    titles = ["loss", "implied s²", "s", "active units", "log p(x)\nnats, mean"]
    caption = (
        f"The linear model with {found.latent_dim} latent units on the {found.data_dim} grey pixels of the digits, in closed form. "
        f"A pixel deviates from its mean by {found.pixel_deviation:.3f} (root mean square)."
    )
    return table(titles, rows, caption)


# --- words that depend on the subject ---------------------------------------------------------------------------------

LIKELIHOODS = {
    "bernoulli": "each pixel is black or white, independently: a Bernoulli whose logit the decoder gives",
    "continuous-bernoulli": "each pixel is grey, independently: a continuous Bernoulli whose logit the decoder gives",
    "discretised-logistic": "each pixel has one of {levels:,} levels, and of each the share that a logistic around the decoder's output has there",
    "categorical": "each group of columns is one choice; the decoder gives its logits",
    "poisson": "each value is a count: a Poisson whose rate's logarithm the decoder gives",
    "gaussian": "each pixel is normal around the decoder's output, with variance 1",
    "gaussian-learned": "each pixel is normal around the decoder's output, with one learned variance",
    "gaussian-learned-diagonal": "each pixel is normal around the decoder's output, with a learned variance of its own",
}
DISCRETE = ("discretised-logistic", "categorical", "poisson")  # families whose p(x) is a probability, as a Bernoulli's


def family(subject: Subject) -> str:
    """The likelihood's name without what it is told, as the levels of discretised-logistic:17."""
    name = subject.vae.likelihood.name.partition(":")[0]
    return name if name in LIKELIHOODS else name.removesuffix("-diagonal")


def likelihood_in_words(subject: Subject) -> str:
    """What the decoder says of x."""
    return LIKELIHOODS[family(subject)].format(levels=getattr(subject.vae.likelihood, "levels", 0))


def examples_in_words(subject: Subject) -> str:
    """What the model was trained on, and that the page's words are those for images, where data are none."""
    seen = "" if subject.binarize == "none" else f" (binarized: {subject.binarize})"
    table = (
        "" if subject.image_shape is not None else "; what the page calls an image is a row of them, a pixel a column"
    )
    return f"{len(subject.train):,} examples of “{escape(subject.name)}”{seen}{table}"


def density_in_words(subject: Subject, answers: Answers) -> str:
    """What a density over these images is, and how large."""
    if family(subject) in DISCRETE:
        return (
            "What is called a density here is a probability, that of one x among all there could be: data are discrete."
        )
    if not subject.vae.likelihood.binary:
        return "A density over images is a probability per unit of volume, in as many dimensions as there are pixels."
    if is_grey(subject.held_out):
        return (
            "<b>The pixels are grey, and a Bernoulli's formula is a probability of black and white ones alone:</b> at grey "
            "pixels it is neither a probability nor a density, for it does not add up to 1. What this page calls log p(x) can be "
            "compared with the other numbers on it, and with no other model's."
        )
    mean = answers.identity.mean_log_evidence
    return (
        "A density over images is a probability per unit of volume; for black and white images it is simply the probability "
        f"of that one image among all 2<sup>{subject.vae.data_dim}</sup> of them. Here log p(x) is {written(mean, '.2f')} on "
        f"average, a probability of about one in {written(Decimal(-mean).exp(), '.1e')}; drawing pixels by coin tosses would give "
        f"{written(-subject.vae.data_dim * np.log(2), '.2f')}."
    )


def doubt(answers: Answers) -> str:
    """A warning where the integrals are less exact than the page says, else nothing."""
    found = answers.identity
    if found.converged.all():
        return ""
    unknown = int(np.isinf(found.error).sum())
    largest = f"the largest error they report is {written(found.error.max(), '.0e')} nats"
    how_far = f"of {unknown} of them no error is known" if unknown else largest
    return (
        f'<p class="note"><b>Less exact than it could be.</b> For {int((~found.converged).sum())} of the {found.examples} '
        f"images the integrals have not settled to 1e-10 nats; {how_far}. "
        "Decoders made of relus are smooth only between their kinks, and a wide one has very many. With a smooth activation "
        "(<code>--activation tanh</code>) they settle.</p>"
    )


def correlation_in_words(answers: Answers) -> str:
    """How the two KLs go together, where both of them vary."""
    found = answers.identity.correlation
    return "" if np.isnan(found) else f", and their correlation over the images is {written(found, '.2f')}"


def late_epochs(answers: Answers) -> str:
    """What the ELBO loses after its best epoch, where it does."""
    found = answers.which
    best = int(np.argmax(found.elbo))
    lost = float(found.elbo[best] - found.elbo[-1])
    if lost < 5e-4:
        return ""
    model, gap = (written(float(values[-1] - values[best]), "+.3f") for values in (found.kl, found.gap))
    return (
        f"Of the epochs shown the ELBO is highest at {found.epochs[best]}. From there to the end the model's distance changes by {model} "
        f"nats and the gap by {gap}, so that the ELBO ends {written(lost, '.3f')} lower: the two need not fall together."
    )


def maximised(subject: Subject) -> str:
    """What the ELBO is to training, and what this model was trained by instead."""
    objective = subject.objective
    if objective == ELBO(objective.num_samples):
        return "what is maximised"
    called = repr(objective).replace(f", name={objective.name!r}", "")
    return f"what is maximised as a rule (this model was trained by <code>{escape(called)}</code>)"


def surgery_error(answers: Answers) -> str:
    """How the parts of the average KL were computed, and how exactly."""
    error = answers.surgery.error
    return (
        f"by integration, to {written(error, '.0e')}" if answers.surgery_is_integral else f"± {error:.3f}, by sampling"
    )


def words(subject: Subject, answers: Answers, settings: Settings, command: str) -> Mapping[str, str]:
    """Pieces of sentences."""
    vae, prior = subject.vae, answers.estimators.row("prior")
    rise, line = answers.movement.phi.elbo, vae.latent_dim == 1
    sizes = " – ".join(str(size) for size in (vae.data_dim, *vae.hidden, vae.latent_dim))
    converged = int(answers.identity.converged.sum())
    return {
        "likelihood": likelihood_in_words(subject),
        "density": density_in_words(subject, answers),
        "doubt": doubt(answers),
        "maximised": maximised(subject),
        "model": (
            f"a network {sizes} with {vae.activation} units and its mirror image, trained for {subject.epochs} epochs on "
            f"{examples_in_words(subject)}"
        ),
        "data": escape(subject.name),
        "dimensions": how_many(vae.latent_dim, "dimension"),
        "latent": how_many(vae.latent_dim, "latent dimension"),
        "normals": "one standard normal number" if line else f"{vae.latent_dim} independent standard normal numbers",
        "gaussian": "a Gaussian" if line else "an axis-parallel Gaussian",
        "misfit": "skewed or has a second mode" if line else "bent, tilted, or has a second mode",
        "elbo_rise": written(float(np.abs(rise - rise[0]).max()), ".2f"),
        "ceiling": written(-answers.which.entropy, ".4f"),
        "kl_at_the_end": written(answers.which.kl[-1], ".3f"),
        "gap_at_the_end": written(answers.which.gap[-1], ".3f"),
        "held_out": f"{len(subject.rows(SURGERY_EXAMPLES)):,}",
        "finest_size": str(answers.mixture.sizes[-1]),
        "finest_error": written(answers.mixture.errors[-1], ".1e"),
        "correlation": correlation_in_words(answers),
        "late_epochs": late_epochs(answers),
        "surgery_error": surgery_error(answers),
        "largest_latent_dim": str(answers.estimators.latent_dims[-1]),
        "centres": str(known_density.CENTRES),
        "prior_miss": written(-prior["bias"][-1], ".1f"),
        "prior_claim": written(prior["claimed"][-1], ".2f"),
        "prior_effective": written(prior["effective"][-1], ".2f"),
        "command": escape(command),
        "origin": escape(f"a model {subject.origin}"),
        "versions": f"scratchvae {scratchvae.__version__}, NumPy {np.__version__}, Python {platform.python_version()}",
        "converged": "all" if converged == answers.identity.examples else str(converged),
    }
