"""The terminal: help that teaches, quiet where it is asked for, colour on a terminal alone, completion, the bar."""

import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from scratchvae.cli import _report, app
from scratchvae.cli.output import Output
from scratchvae.cli.status import BAD_INPUT
from scratchvae.progress import progress_bar
from tests.cli.conftest import FAST, REPOSITORY, Command

COMMANDS = sorted(command.callback.__name__ for command in app.registered_commands)
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9]")


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """What a command writes to a terminal of 80 columns, escapes included."""
    ours, theirs = pty.openpty()
    variables = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    variables |= {"PYTHONPATH": str(REPOSITORY), "TERM": "xterm-256color", "COLUMNS": "80"} | environment
    process = subprocess.Popen(
        [sys.executable, "-m", "scratchvae", *arguments], stdout=theirs, stderr=theirs, env=variables
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        written += part
    os.close(ours)
    assert process.wait(timeout=60) == 0, written
    return written.decode()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_has_examples_that_can_be_copied(command: Command, name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = command(name, "--help")
    lines = [line.strip() for line in result.out.splitlines()]
    assert "Examples" in lines
    examples = lines[lines.index("Examples") + 1 :]
    examples = examples[: examples.index("")]
    assert examples
    assert all(f"scratchvae {name}" in line for line in examples), "an example that is broken in two cannot be copied"
    assert "--quiet" in result.out
    assert "…" not in result.out, "an option that is cut cannot be typed"


@pytest.mark.parametrize(
    ("words", "completed"), [("scratchvae tr", {"train"}), ("scratchvae train --thr", {"--threads"})]
)
def test_a_shell_completes_commands_and_options(command: Command, words, completed):
    assert "--install-completion" in command("--help").out
    asked = {"_SCRATCHVAE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    python = [sys.executable, "-m", "scratchvae"]
    done = subprocess.run(python, env={**os.environ, **asked}, capture_output=True, text=True, timeout=60)
    assert set(done.stdout.split()) == completed


def test_help_is_coloured_on_a_terminal_and_not_where_no_color_is_set():
    assert COLOUR.search(on_a_terminal("info", "--help"))
    assert not COLOUR.search(on_a_terminal("info", "--help", NO_COLOR="1"))


@pytest.mark.parametrize(
    "closed",
    ["1>&-", "0<&- 1>&- 2>&-", *(pytest.param(one, marks=pytest.mark.slow) for one in ("0<&-", "2>&-"))],
)
def test_a_closed_stream_takes_nothing_away_from_the_others(closed, tmp_path):
    def run(words):
        line = f"{shlex.quote(sys.executable)} -m scratchvae {words} {closed}"
        variables = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        return subprocess.run(line, shell=True, cwd=tmp_path, env=variables, capture_output=True, text=True)

    told, refused = run("info"), run("sample nowhere")
    assert (told.returncode, told.stderr, "versions" in told.stdout) == (0, "", "1>" not in closed)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert len(refused.stderr.splitlines()) == ("2>" not in closed)


def test_what_goes_to_a_pipe_has_no_colour(process):
    out, err = process("info", "--help").communicate(timeout=60)
    assert "\x1b" not in out + err


@pytest.mark.parametrize(
    ("letter", "encoding", "shown"), [("±", "ascii", r"x\xb1"), ("\udcff", "utf-8", r"x\udcff")], ids=ascii
)
def test_a_letter_that_the_output_cannot_have_takes_no_result_away(letter, encoding, shown, tmp_path):
    """Here in the name of a folder; a table of nats has a letter beyond ASCII too."""
    done = subprocess.run(
        [sys.executable, "-m", "scratchvae", "info", "--engine", "reference"],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": encoding, "SCRATCHVAE_DATA": f"x{letter}"},
        cwd=tmp_path,
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert f"{shown} (not there)".encode() in done.stdout


def test_a_table_in_a_pipe_is_100_columns_wide_or_what_columns_says(command: Command, monkeypatch):
    monkeypatch.setenv("SCRATCHVAE_DATA", "x" * 120)  # more than fits
    for columns, width in (("", 100), ("70", 70)):
        monkeypatch.setenv("COLUMNS", columns)
        assert max(map(len, command("info").out.splitlines())) == width


@pytest.mark.parametrize(
    ("name", "columns"), [("audit", "20"), ("audit", "80"), ("evaluate", "20"), ("evaluate", "40"), ("gradcheck", "40")]
)
def test_no_number_and_no_word_is_cut_from_a_table_in_a_narrow_terminal(command, trained, monkeypatch, name, columns):
    monkeypatch.setenv("COLUMNS", columns)
    more = (trained, "--samples", "5", "--limit", "5") if name == "evaluate" else ()
    shown = command(name, *more)
    assert shown.status == 0
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown.out
    monkeypatch.setenv("COLUMNS", "200")
    whole = command(name, *more).out
    assert sorted(re.findall("[^ \n]", shown.out.replace("─", ""))) == sorted(
        re.findall("[^ \n─]", whole.replace("─", ""))
    )


def test_a_table_of_the_usual_terminal_is_no_wider(command: Command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, command("audit").out.splitlines())) <= 80


def test_what_a_folder_is_called_is_no_markup(command: Command, monkeypatch):
    monkeypatch.setenv("SCRATCHVAE_DATA", "[red]data[/red]")
    assert "[red]data[/red] (not there)" in command("info").out


def test_quiet_training_says_nothing_but_its_result(command: Command, images, tmp_path):
    result = command("train", images, *FAST, "--epochs", "1", "--out", "run", "--quiet")
    assert result.status == 0
    assert result.err == ""
    assert "held out" in result.out
    assert (tmp_path / "run" / "report.html").is_file()


def test_quiet_json_is_the_object_alone(command: Command, trained):
    result = command("evaluate", trained, "--engine", "reference", "--samples", 5, "--json", "-q")
    assert result.record["command"] == "evaluate"
    assert result.err == ""


def test_quiet_still_says_what_went_wrong(command: Command):
    result = command("train", "nosuch.npy", "--quiet")
    assert result.status == 2
    assert len(result.err.splitlines()) == 1


def test_a_quiet_terminal_sees_no_bar(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert Output(False).is_live
    assert not Output(False, quiet=True).is_live


def test_the_bar_shows_the_time_that_remains_in_80_columns(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    terms = {"elbo": -123.45, "reconstruction": -98.76, "kl": 24.69}
    with progress_bar(150, 2) as bar:
        for number in range(1, 9):
            bar.epoch({"epoch": number, "train": terms, "validation": terms})
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)
    last = [line for line in re.split(r"[\r\n]+", shown) if "epoch 8/150" in line][-1]
    assert re.search(r"\d:\d\d:\d\d|-:--:--", last)
    assert "ELBO -123.45 = -98.76 - KL 24.69" in last
    assert "held out" in last
    assert len(last) <= 80


def test_an_error_without_words_is_named(capsys):
    assert _report(ValueError(), BAD_INPUT) == BAD_INPUT
    assert capsys.readouterr().err == "scratchvae: ValueError\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no file that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_is_full_is_said_in_words(unbuffered):
    """Also where Python writes once more as it ends."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "scratchvae", "audit"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "scratchvae: standard output, or another file: No space left on device; expected a file that can be read or "
        "written"
    ]
