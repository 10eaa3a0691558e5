"""What the terms mean, computed and shown: ten questions, each with exact numbers, a picture and the code.

subject.py            the model and the data that everything is computed on
identity.py           1, 2, 5: log p(x) = ELBO + KL(q || p(z|x)); the ELBO's forms; the other KL
movement.py           3: what is constant while what moves
posterior_shapes.py   4: p(z|x) beside q(z|x)
known_density.py      6, 7: p(x) as a mixture; the model's density and the data's
estimators.py         8: log p(x) by sampling, against the truth
gradient_noise.py     9: score function and reparameterization
squared_error.py      10: the variance that a loss implies
answers.py            all of them, in order

figures.py formulas.py sources.py page.py page.html page.css     how they are shown
"""

from .answers import Answers, answer
from .page import render
from .subject import Settings, Subject, subject_of, train_on_digits

__all__ = ["Answers", "Settings", "Subject", "answer", "render", "subject_of", "train_on_digits"]
