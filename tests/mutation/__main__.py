"""`python -m tests.mutation`: plant faults, one at a time, and count those that the tests notice.

A run can be stopped and goes on where it was: in a file that has not changed, faults that were noticed are not tried
again, nor those that survived for a reason in `equivalent.json`; others that survived are. A fault that has been drawn
stays drawn while it is in the sources, so that a change of one file does not draw those of all others anew.
"""

import argparse
import hashlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.mutation.coverage import Recorder, Run, quickest
from tests.mutation.operators import Fault, faults
from tests.mutation.trial import SILENT, copy_of, dependents, in_a_fork, notices

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
SEED = 0
BAR = 0.95


class Part(NamedTuple):
    """Sources, the tests they are shown to, and how many faults are drawn from them (None: all)."""

    sources: tuple[str, ...]
    tests: tuple[str, ...]
    sample: int | None
    most_seconds: float = 20.0  # of tests for one fault, as measured without it
    kernels: bool = False


REFERENCE = ("-k", "not compiled")  # of tests that there are for both engines, the one that needs no compiler
PROOFS = ("tests/proofs/test_derivatives.py", "tests/proofs/test_determinism.py")
MODEL_TESTS = (
    *REFERENCE,
    "tests/proofs/test_determinism.py",
    "tests/test_vae.py",
    "tests/test_objectives.py",
    "tests/test_training.py",
    "tests/test_checkpoint.py",
    "tests/test_likelihoods.py",
    "tests/test_elbo_variants.py",
    "tests/test_hierarchical.py",
    "tests/test_posteriors.py",
    "tests/test_schedules.py",
    "tests/proofs/test_estimators.py",
    "tests/proofs/test_numerical_storms.py",
    "tests/proofs/test_seeded_bugs.py",
)
STEPS = ("tests/compiled/test_step.py", "tests/test_distributed.py", "tests/test_progress.py")  # of either engine
TWINS = ("tests/compiled", "tests/reference", "tests/proofs/test_twins.py")
PARTS = {
    "reference": Part(
        ("scratchvae/reference",), (*REFERENCE, "tests/reference", "tests/test_posteriors.py", *PROOFS), 250
    ),
    "evidence": Part(("scratchvae/evidence",), (*REFERENCE, "tests/evidence"), 250),
    "vae": Part(("scratchvae/vae.py",), MODEL_TESTS, None),
    "objectives": Part(("scratchvae/objectives",), MODEL_TESTS, None),
    "training": Part(("scratchvae/training.py",), (*MODEL_TESTS[len(REFERENCE) :], *STEPS), None),
    "compiled": Part(("scratchvae/compiled",), TWINS, 200, 60.0, True),
}


def main(arguments: list[str] | None = None) -> int:
    """Exit status 1 where the score of a part is below the bar."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{' '.join(PARTS)}; all by default")
    parser.add_argument("--json", type=Path, default=HERE / "results.json", help="where the results are kept")
    parser.add_argument("--sample", type=int, help="so many faults of each part, drawn with a fixed seed")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.parts if name not in PARTS]:
        parser.error(f"no part is named {unknown[0]!r}; expected {', '.join(PARTS)}")
    results = json.loads(options.json.read_text()) if options.json.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        root = copy_of(REPOSITORY, Path(folder) / "project")
        for name in options.parts or PARTS:
            part = PARTS[name]._replace(**({"sample": options.sample} if options.sample else {}))
            for result in examine(name, part, root, results.get(name, {})):
                results[name] = result
                _write(options.json, results)
    return 0 if all([_report(name, results[name]) for name in options.parts or PARTS]) else 1  # a list: all are told


def examine(name: str, part: Part, root: Path, before: dict) -> Iterator[dict]:
    """The verdict on every fault of a part: the result so far, now and then, and at the end."""
    known = before.get("verdicts", {}) if before.get("digests") else {}
    drawn = draw(part, root, set(known))
    sources = {file: (root / file).read_text() for file, _ in drawn}
    digests = {file: hashlib.sha256(text.encode()).hexdigest()[:16] for file, text in sources.items()}
    result = {"faults": sum(len(found) for _, found in _all(part, root)), "drawn": len(drawn), "digests": digests}
    keys = [f"{file} {fault.key}" for file, fault in drawn]
    same = {file for file, digest in digests.items() if before.get("digests", {}).get(file) == digest}
    reasons = _reasons()
    decided = {key for key, verdict in known.items() if verdict == "noticed" or key in reasons}
    result["verdicts"] = verdicts = {
        key: known[key] for key, (file, _) in zip(keys, drawn, strict=True) if file in same and key in decided
    }
    runs = record(part, root)
    for number, (key, (file, fault)) in enumerate(zip(keys, drawn, strict=True), 1):
        if key in verdicts:
            continue
        path = root / file
        inlined = (
            {str((path.parent / f"{name}.py").relative_to(root)) for name in dependents(path)} if part.kernels else ()
        )
        tests = quickest(runs, file, fault.statement, part.most_seconds, inlined)
        started = time.monotonic()
        limit = int(30 + 2 * part.most_seconds)
        noticed = bool(tests) and notices(root, file, fault.apply(sources[file]), tests, limit, part.kernels)
        verdicts[key] = "noticed" if noticed else "survived"
        words = "" if noticed else f"  SURVIVED {len(tests)} tests: {key}"
        print(f"{name} {number}/{len(drawn)} {time.monotonic() - started:.1f} s{words}", file=sys.stderr, flush=True)
        if not noticed or number % 20 == 0:
            yield result
    yield result | {"verdicts": {key: verdicts[key] for key in keys}}


def draw(part: Part, root: Path, before: Collection[str] = ()) -> list[tuple[str, Fault]]:
    """The faults of a part, or a random sample of them: those drawn before, then as many others as are wanted."""
    found = [(file, fault) for file, those in _all(part, root) for fault in those]
    if part.sample is not None and part.sample < len(found):
        order = list(range(len(found)))
        random.Random(SEED).shuffle(order)  # a larger sample has the smaller one in it
        order.sort(key=lambda index: f"{found[index][0]} {found[index][1].key}" not in before)
        found = [found[index] for index in sorted(order[: part.sample])]
    return found


def _all(part: Part, root: Path) -> list[tuple[str, list[Fault]]]:
    files = [
        file
        for source in part.sources
        for file in ([root / source] if source.endswith(".py") else sorted((root / source).rglob("*.py")))
    ]
    return [(str(file.relative_to(root)), faults(file.read_text())) for file in files]


def record(part: Part, root: Path) -> list[Run]:
    """Lines and seconds of every test of the part, without a fault. Raises RuntimeError where one fails."""
    kept = root.parent / ("record-" + hashlib.sha256(repr(part.tests).encode()).hexdigest()[:8])
    if not kept.exists():

        def work() -> int:
            recorder = Recorder(root, "scratchvae")
            status = int(pytest.main([*SILENT, *part.tests], plugins=[recorder]))
            kept.write_text(json.dumps(recorder.runs))
            return status

        log = root.parent / "record.log"
        if in_a_fork(work, root, 7200, log) != 0:
            raise RuntimeError(f"the tests do not pass without a fault:\n{log.read_text()[-3000:]}")
    runs = json.loads(kept.read_text())
    return [Run(test, seconds, {file: set(seen) for file, seen in lines.items()}) for test, seconds, lines in runs]


def _report(name: str, result: dict) -> bool:
    reasons = _reasons()
    survived = [key for key, verdict in result["verdicts"].items() if verdict == "survived"]
    tried = len(result["verdicts"])
    noticed, equal = tried - len(survived), sum(key in reasons for key in survived)
    score = noticed / (tried - equal)
    print(
        f"{name}: {score:.1%} noticed: {noticed} of {tried}, {equal} more change nothing; {result['faults']} there are"
    )
    for key in survived:
        print(f"    {key}\n        {reasons.get(key, 'NO REASON GIVEN')}")
    return score >= BAR


def _reasons() -> dict[str, str]:
    """Why a fault that survives changes nothing."""
    return json.loads((HERE / "equivalent.json").read_text())


def _write(path: Path, results: dict) -> None:
    """A kill leaves the verdicts as they were. Not by `scratchvae.files`: what is broken here is not to be imported."""
    beside = path.with_suffix(".unfinished")
    beside.write_text(json.dumps(results, indent=1) + "\n")
    beside.replace(path)


if __name__ == "__main__":
    sys.exit(main())
