"""Which faults are drawn: as many as asked for, at random, and the same ones after a change elsewhere. What is said."""

import pytest

from tests.mutation import __main__ as tool
from tests.mutation.__main__ import Part, draw

PART = Part(("sources",), (), 8)


def keys(found):
    return [f"{file} {fault.key}" for file, fault in found]


def test_a_part_that_there_is_not_is_refused_in_one_line(capsys):
    with pytest.raises(SystemExit, match="2"):
        tool.main(["vae", "nonsense"])
    assert "no part is named 'nonsense'; expected reference, evidence, " in capsys.readouterr().err.splitlines()[-1]


def test_a_sample_has_its_size_and_a_larger_one_has_it_inside(tmp_path):
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources/a.py").write_text("".join(f"a{n} = b + {n}.5\n" for n in range(20)))
    some, more = keys(draw(PART, tmp_path)), keys(draw(PART._replace(sample=15), tmp_path))
    assert (len(some), len(more)) == (8, 15)
    assert set(some) < set(more)
    assert len(draw(PART._replace(sample=None), tmp_path)) == len(draw(PART._replace(sample=99), tmp_path)) == 40


def test_what_was_drawn_before_stays_drawn_while_it_is_there(tmp_path):
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources/a.py").write_text("".join(f"a{n} = b + {n}.5\n" for n in range(20)))
    first = set(keys(draw(PART, tmp_path)))
    (tmp_path / "sources/b.py").write_text("c = d - e\n")
    assert set(keys(draw(PART, tmp_path, first))) == first
    (tmp_path / "sources/a.py").write_text("".join(f"a{n} = b + {n}.5\n" for n in range(10)))
    second = set(keys(draw(PART, tmp_path, first)))
    assert len(second) == 8
    assert first & second == first & set(keys(draw(PART._replace(sample=None), tmp_path)))
    assert first & second != first, "some are gone"


def test_every_part_is_reported_also_behind_one_below_the_bar(tmp_path, monkeypatch, capsys):
    verdicts = {"weak": {"a.py f: 0 -> 1": "survived"}, "strong": {"b.py f: 0 -> 1": "noticed"}}
    monkeypatch.setattr(tool, "PARTS", dict.fromkeys(verdicts, PART))
    monkeypatch.setattr(tool, "copy_of", lambda repository, folder: folder)
    monkeypatch.setattr(tool, "examine", lambda name, *_: [{"faults": 1, "verdicts": verdicts[name]}])
    assert tool.main(["--json", str(tmp_path / "results.json")]) == 1
    said = capsys.readouterr().out
    assert "weak: 0.0% noticed: 0 of 1" in said
    assert "strong: 100.0% noticed: 1 of 1" in said
