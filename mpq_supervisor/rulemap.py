"""The classifier's rules as lines of nftables for one IP version. Pure.

The kernel walks a chain line by line, so a thousand rules would be a thousand steps for the first packet of every
flow. Neighbours that look at the same fields become one line, a verdict map of at most `LARGEST_MAP` entries:

    meta l4proto . th dport vmap { tcp . 80 : goto rule_web, udp . 10000-20000 : goto rule_voice }

In a map there is no order, so a rule that overlaps one already in it begins the next line. Rules with sets or DSCP
stand alone (nft 1.0.6 cannot concatenate parts of a byte), and so does one that would have very many entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_network
from itertools import product
from math import prod

from mpq_supervisor.classifier import PrefixSets, RulePlan
from mpq_supervisor.network import version_of
from mpq_supervisor.schema import PortRange

LARGEST_MAP = 128
_FAMILY = {4: "ip", 6: "ip6"}

_Range = tuple[int, int]
_Key = tuple[tuple[str, _Range], ...]
"""One entry of a map: text and extent of each of its fields."""


def rule_lines(rules: Iterable[RulePlan], sets: PrefixSets, version: int) -> Iterator[str]:
    """Lines of a chain, each leading to `rule_NAME` of the rules that it stands for."""
    run = _Run(version, ())
    for rule in rules:
        if not (_possible(rule.source, sets, version) and _possible(rule.destination, sets, version)):
            continue
        expressions, keys = _expressions(rule, version), _keys(rule, version)
        if not run.takes(expressions, keys):
            yield from run.flush()
            run = _Run(version, expressions)
        if keys:
            run.add(rule, keys)
        else:
            yield from _plain(rule, sets, version)
    yield from run.flush()


def set_name(name: str, version: int) -> str:
    """What the prefixes of one version of `[set.NAME]` are called in nftables."""
    return f"set_{name}_{version}"


class _Run:
    """Neighbouring rules that will share a map."""

    def __init__(self, version: int, expressions: tuple[str, ...]) -> None:
        self._version = version
        self._expressions = expressions
        self._rules: list[RulePlan] = []
        self._entries: list[tuple[_Key, str]] = []

    def takes(self, expressions: tuple[str, ...], keys: list[_Key]) -> bool:
        """Whether entries of these fields can be added."""
        return (
            bool(keys)
            and expressions == self._expressions
            and len(self._entries) + len(keys) <= LARGEST_MAP
            and not any(_overlap(key, entry) for key in keys for entry, _ in self._entries)
        )

    def add(self, rule: RulePlan, keys: list[_Key]) -> None:
        self._rules.append(rule)
        self._entries += [(key, rule.name) for key in keys]

    def flush(self) -> Iterator[str]:
        """The line of what was gathered."""
        if len(self._rules) == 1:
            yield from _plain(self._rules[0], {}, self._version)
        elif self._rules:
            entries = (f"{' . '.join(text for text, _ in key)} : goto rule_{name}" for key, name in self._entries)
            yield f"{' . '.join(self._expressions)} vmap {{ {', '.join(entries)} }}"


def _plain(rule: RulePlan, sets: PrefixSets, version: int) -> Iterator[str]:
    """A line for each way to match: nft has no "or" between sets."""
    family = _FAMILY[version]
    ways = product(
        _matches(f"{family} saddr", rule.source, sets, version),
        _matches(f"{family} daddr", rule.destination, sets, version),
    )
    rest = [f"meta l4proto {rule.protocol}"] if rule.protocol else []
    rest += [f"th dport {{ {', '.join(map(_port, rule.ports))} }}"] if rule.ports else []
    rest += [f"{family} dscp {{ {', '.join(map(str, rule.dscp))} }}"] if rule.dscp else []
    for addresses in ways:
        yield " ".join([*filter(None, addresses), *rest, f"goto rule_{rule.name}"])


def _matches(what: str, items: tuple[str, ...], sets: PrefixSets, version: int) -> list[str]:
    prefixes = _inline(items, version)
    named = [name[1:] for name in items if name[0] == "@" and _possible((name,), sets, version)]
    return [
        *([f"{what} {{ {', '.join(prefixes)} }}"] if prefixes else []),
        *(f"{what} @{set_name(name, version)}" for name in named),
    ] or [""]


def _possible(items: tuple[str, ...], sets: PrefixSets, version: int) -> bool:
    """Whether an address of that version can be among them."""
    prefixes = (p for item in items for p in (sets[item[1:]] if item[0] == "@" else (item,)))
    return not items or any(version_of(prefix) == version for prefix in prefixes)


def _expressions(rule: RulePlan, version: int) -> tuple[str, ...]:
    given = {
        f"{_FAMILY[version]} saddr": rule.source,
        f"{_FAMILY[version]} daddr": rule.destination,
        "meta l4proto": rule.protocol,
        "th dport": rule.ports,
    }
    return tuple(expression for expression, values in given.items() if values)


def _keys(rule: RulePlan, version: int) -> list[_Key]:
    """All entries of a rule, each in the order of `_expressions`; none for a rule that has to stand alone."""
    if rule.dscp or any(item[0] == "@" for item in (*rule.source, *rule.destination)):
        return []
    protocols = (rule.protocol,) if rule.protocol else ()
    columns: list[list[tuple[str, _Range]]] = [
        [(prefix, _extent(prefix)) for prefix in _inline(rule.source, version)],
        [(prefix, _extent(prefix)) for prefix in _inline(rule.destination, version)],
        [(name, (int.from_bytes(name.encode()),) * 2) for name in protocols],
        [(_port(ports), (ports.first, ports.last)) for ports in rule.ports],
    ]
    given = [column for column in columns if column]
    return list(product(*given)) if given and prod(map(len, given)) <= LARGEST_MAP else []


def _inline(items: tuple[str, ...], version: int) -> list[str]:
    return [item for item in items if item[0] != "@" and version_of(item) == version]


def _extent(prefix: str) -> _Range:
    network = ip_network(prefix)
    return int(network.network_address), int(network.broadcast_address)


def _port(ports: PortRange) -> str:
    return str(ports.first) if ports.first == ports.last else f"{ports.first}-{ports.last}"


def _overlap(one: _Key, other: _Key) -> bool:
    return all(a[0] <= b[1] and b[0] <= a[1] for (_, a), (_, b) in zip(one, other, strict=True))
