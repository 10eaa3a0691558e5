"""How good are the tests? `python -m tests.mutation` plants small faults in the sources and counts those that no test
notices.

operators.py      the faults: comparisons, arithmetic, signs, constants, boundaries, returns, statements left out
coverage.py       which test runs which line, and how long it takes
trial.py          one fault, in a fresh process, before the quickest tests that run its line
equivalent.json   faults that change nothing that could be noticed, with the reason
results.json      the last run: the score, and every fault that survived
"""
