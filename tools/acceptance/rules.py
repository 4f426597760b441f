"""A large classifier, put into a running site by one reload."""

from __future__ import annotations

import time

from mpq_supervisor.requests import Code
from tools.acceptance.ground import running, say, total
from tools.results import Results
from tools.traffic import start_probes
from tools.wait import pause

RULES, PREFIXES = 1000, 500
RELOADS = 5
SETTLE = 1.0


def rules(results: Results) -> None:
    """1,000 rules and 500 prefixes come and go by a reload: how long that takes; nothing is lost meanwhile."""
    with running() as system:
        path = system.configs["site"]
        small = path.read_text()
        probes = start_probes(system.lab, "lan", "server", system.deployment.probes())
        pause(SETTLE)
        times, failed = [], 0
        for _ in range(RELOADS):
            for text in (_large(small), small):
                path.write_text(text)
                begin = time.monotonic()
                failed += system.lab.ctl("site", "reload").code is not Code.OK
                times.append((time.monotonic() - begin) * 1000)
                pause(SETTLE)
        sent, lost, _ = total(probes.result())
    results.add("rules.reload", times[::2], f"ms for {RULES} rules, {PREFIXES} prefixes")
    results.add("rules.reload_back", times[1::2], "ms for the few rules of before")
    results.add("rules.failed", [failed], f"of {2 * RELOADS} reloads", target=0)
    results.add("rules.lost", [lost], f"probes of {sent}", target=0)
    say(f"{RULES} rules in {sorted(times[::2])[RELOADS // 2]:.0f} ms; {failed} failed; {lost} of {sent} lost")


def _large(text: str) -> str:
    """Before the rules that are there: half by port, a quarter by destination, a quarter by set and DSCP."""
    found = [f'[[rule]]\nclass = "critical"\nprotocol = "udp"\nports = [{n}]\n' for n in range(1, RULES // 2 + 1)]
    found += [f'[[rule]]\nclass = "default"\ndestination = ["198.18.{n}.0/24"]\n' for n in range(RULES // 4)]
    found += [f'[[rule]]\nclass = "bulk"\nsource = ["@s{n % 10}"]\ndscp = [{n % 40}]\n' for n in range(RULES // 4)]
    sets = [f"[set.s{n}]\nprefixes = {[f'10.{n}.{2 * m}.0/24' for m in range(PREFIXES // 10)]}\n" for n in range(10)]
    head, rest = text.split("[[rule]]", 1)
    return f"{head}{''.join(found)}[[rule]]{rest}{''.join(sets)}"
