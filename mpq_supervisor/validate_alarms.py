"""The checks of a portal's alarms and of where they are sent; see `validate`. Pure."""

from __future__ import annotations

import math
import re
from ipaddress import IPv6Address
from urllib.parse import urlsplit

from mpq_supervisor import arithmetic
from mpq_supervisor.decode import join, nearest
from mpq_supervisor.events import class_word
from mpq_supervisor.problems import Problems, each, names_of, tunnels_of
from mpq_supervisor.schema import MAX_FALLS, Alarm, Config, Portal, SiteConfig
from mpq_worker.contract import Timing

_CEILINGS = {
    "loss": (1.0, "a ratio of lost to sent, from 0 to 1"),
    "asymmetric": (1.0, "a difference of ratios, from 0 to 1"),
    "rtt": (Timing().idle_timeout, "seconds, and a connection ends when nothing has come for {:.0f}"),
    "flapping": (MAX_FALLS, "how often, and {:.0f} times are remembered"),
}
"""What the values of a kind never exceed, and what they are."""
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_URL = re.compile(r"[!-~]+")


def check_alarms(config: Config, portal: Portal, problems: Problems) -> None:
    """Adds what is wrong with the alarms of `portal`, and with its webhook's URL."""
    alarms = list(each(portal.alarm, "portal.alarm"))
    problems.check_unique("alarm", "name", ((path, alarm.name) for path, alarm in alarms))
    known, unsure = _subjects(config)
    for path, alarm in alarms:
        _check_thresholds(path, alarm, problems)
        for index, word in enumerate(alarm.of):
            if word not in known:
                text = f'no tunnel, WAN or class "{word}"{nearest(word, known)}'
                problems.add(f"{path}.of[{index}]", text, *unsure)
    if portal.webhook is not None and (text := _fault(portal.webhook.url)):
        problems.add("portal.webhook.url", text)


def _check_thresholds(path: str, alarm: Alarm, problems: Problems) -> None:
    ceiling, unit = _CEILINGS.get(alarm.kind, (math.inf, "GB"))
    if alarm.kind == "down":
        if alarm.above or alarm.clear:
            key = "above" if alarm.above else "clear"
            problems.add(f"{path}.{key}", "is not for `down`, which has no value", f"{path}.kind")
        return
    if not alarm.above:
        problems.add(f"{path}.above", "is missing", f"{path}.kind")
    elif not alarm.above < ceiling:  # nan neither
        text = f"{alarm.above:g} is never exceeded: the value is {unit.format(ceiling)}"
        problems.add(f"{path}.above", text, f"{path}.kind")
    if alarm.clear is not None and not alarm.clear <= alarm.above:
        problems.add(f"{path}.clear", "is above `above`", f"{path}.above")
    if alarm.kind == "flapping" and not alarm.seconds:
        problems.add(f"{path}.seconds", "is what falls are counted over: must be above 0", f"{path}.kind")


def _subjects(config: Config) -> tuple[set[str], tuple[str, ...]]:
    """Tunnels, WANs and classes (at a hub workers, listeners and classes), and the paths that they follow from."""
    if isinstance(config, SiteConfig):
        groups = {wan.name: tunnels for _, wan, tunnels in tunnels_of(config)}
        suffixes = (f"wan[{place}].suffix" for place in range(len(config.wan)))
        matrix = ("matrix", *(join("matrix", name) for name in groups))
        unsure = (*names_of(config.wan, "wan"), *suffixes, *matrix, "class")
    else:
        listeners = list(each(config.listener, "listener"))
        groups = {entry.name: arithmetic.hub_worker_names(config, entry) for _, entry in listeners}
        unsure = (*names_of(config.listener, "listener"), *(f"{path}.workers" for path, _ in listeners), "class")
    known = set(groups)
    for workers in groups.values():
        known |= {*workers, *map(class_word, workers.values())}
    return known, unsure


def _fault(url: str) -> str:
    """What is wrong with the receiver's URL, or nothing. Its text is in no answer: the path is often a secret."""
    if not url.startswith(("http://", "https://")):
        return "must begin with https:// or http://"
    if not _URL.fullmatch(url):
        return "has a space or a character that is not ASCII: write it as %20 and so on, a host's name as xn--…"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        if parts.netloc.startswith("["):
            IPv6Address(host)
    except ValueError:
        return "its host or port cannot be read"
    if "@" in parts.netloc:
        return "has a user or a password, which are not sent"
    if len(host) > 253 or not (":" in host or all(map(_LABEL.fullmatch, host.removesuffix(".").split(".")))):
        return "its host is neither a name nor an address"
    return "port 0 is nobody's" if port == 0 else ""
