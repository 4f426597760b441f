"""`mpq-supervisor token NAME`: makes a token for the portal and shows what the configuration must say of it."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta

from mpq_supervisor.portal.auth import hash_of


def main(name: str, role: str, days: int | None) -> int:
    """Prints the token, which is kept nowhere, and the lines for the configuration; returns 0."""
    token = secrets.token_urlsafe(32)
    print(f"# the token, shown only now: {token}")
    print("[[portal.token]]")
    print(f'name = "{name}"')
    print(f'role = "{role}"')
    print(f'hash = "{hash_of(token)}"')
    if days is not None:
        print(f"expires = {(datetime.now(UTC) + timedelta(days=days)).date()}")
    return 0
