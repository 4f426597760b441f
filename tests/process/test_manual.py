"""The manual page and the completion, as made of the program's own help."""

from __future__ import annotations

import subprocess

import pytest

from tools.manual import completion, helps, page


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    """What the commands of this tree say."""
    return helps()


def test_every_command_is_found(found: dict[str, str]) -> None:
    assert {"", "run", "check", "ctl", "ctl status", "ctl restart", "pki", "pki init"} < set(found)


def test_the_page_has_every_command_that_does_something(found: dict[str, str]) -> None:
    text = page(found).replace("\\-", "-")
    groups, short = {"", "ctl", "pki"}, {"plan"}  # `plan` is `ctl plan`, and told as such
    assert all(f"\nmpq-supervisor {words} " in text for words in found.keys() - groups - short)
    assert "--no-wait" in text
    assert "COMMANDS\n.nf\n" in text
    assert "\n.SH SEE ALSO\n" in text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("mpq-supervisor che", ["check"]),
        ("mpq-supervisor ctl --runtime-dir x re", ["restart", "reload"]),
        ("mpq-supervisor ctl restart --no", ["--no-wait"]),
        ("mpq-supervisor ctl restart br2 al", ["all"]),
        ("mpq-supervisor pki site --nam", ["--name"]),
    ],
)
def test_completion(found: dict[str, str], line: str, words: list[str]) -> None:
    count = len(line.split())
    script = f"{completion(found)}\nCOMP_WORDS=({line})\nCOMP_CWORD={count - 1}\n_mpq_supervisor\n"
    script += 'printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (words, "")
