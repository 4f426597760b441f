"""`mpq-supervisor token`: what it prints is what the configuration takes."""

from __future__ import annotations

import tomllib

import pytest

from mpq_supervisor import token
from mpq_supervisor.portal.auth import hash_of


def test_a_token_and_the_lines_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert token.main("ann", "operator", 30) == 0
    said = capsys.readouterr().out
    (section,) = tomllib.loads(said)["portal"]["token"]
    assert section["hash"] == hash_of(said.splitlines()[0].rpartition(" ")[2])
    assert (section["name"], section["role"]) == ("ann", "operator")


@pytest.mark.parametrize(
    ("name", "days", "problem"),
    [
        ('a"b', None, "NAME: "),
        ("ann\nrole = 1", None, "NAME: "),
        ("\x1b[2J", None, "NAME: "),
        ("a" * 33, None, "NAME: "),
        ("", None, "NAME: "),
        ("ann", 0, "--days: 1 to 36500"),
        ("ann", 10**12, "--days: 1 to 36500"),
    ],
)
def test_what_the_configuration_would_not_take_is_refused(
    name: str, days: int | None, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert token.main(name, "viewer", days) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.startswith(problem), said.err.count("\n")) == ("", True, 1)
    assert said.err.strip().isprintable()
