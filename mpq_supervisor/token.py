"""`mpq-supervisor token NAME`: makes a token for the portal and shows what the configuration must say of it."""

from __future__ import annotations

import secrets
import sys
from datetime import UTC, datetime, timedelta

from mpq_supervisor.decode import Problem, decode
from mpq_supervisor.portal.auth import hash_of
from mpq_supervisor.schema import Name

MAX_DAYS = 36_500


def main(name: str, role: str, days: int | None) -> int:
    """Prints the token, which is kept nowhere, and the lines for the configuration; returns 0, or 2 for a name that
    the configuration would not take, and for a time that is none."""
    problems: list[Problem] = []
    decode(Name, name, "NAME", problems)
    if days is not None and not 1 <= days <= MAX_DAYS:
        problems.append(Problem("--days", f"1 to {MAX_DAYS}"))
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        return 2
    token = secrets.token_urlsafe(32)
    print(f"# the token, shown only now: {token}")
    print("[[portal.token]]")
    print(f'name = "{name}"')
    print(f'role = "{role}"')
    print(f'hash = "{hash_of(token)}"')
    if days is not None:
        print(f"expires = {(datetime.now(UTC) + timedelta(days=days)).date()}")
    return 0
