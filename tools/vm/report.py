"""The machine's JUnit files made one, and a line that says it all. Pure.

A test's properties are its figures: `boot to nine UP` = `31.2 s`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

_BOOTS = 2


@dataclass(frozen=True)
class Outcome:
    """All tests of a run. It is good if none failed, and each boot came to its report."""

    xml: bytes
    good: bool
    passed: int
    skipped: int
    failures: list[str]
    figures: dict[str, str]

    def line(self, seconds: float) -> str:
        """What became of it; `seconds` is how long it took."""
        counts = f"{self.passed} passed, {len(self.failures)} failed, {self.skipped} skipped in {seconds:.0f} s"
        return f"vm-test: {'; '.join([counts, *(f'{name} {value}' for name, value in self.figures.items())])}"


def merge(files: Mapping[str, bytes]) -> Outcome:
    """One outcome of the JUnit files of all boots, by their names."""
    root = ElementTree.Element("testsuites")
    for name in sorted(files):
        root.extend(ElementTree.fromstring(files[name]).iter("testsuite"))
    cases = list(root.iter("testcase"))
    bad = [(case, why) for case in cases if (why := _complaint(case)) is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    failures = [f"{case.get('classname')}.{case.get('name')}: {why}" for case, why in bad]
    if len(files) < _BOOTS:
        failures.append(f"{_BOOTS} boots were to report, {len(files)} did")
    return Outcome(
        xml=ElementTree.tostring(root, encoding="utf-8", xml_declaration=True),
        good=not failures,
        passed=len(cases) - len(bad) - len(skipped),
        skipped=len(skipped),
        failures=failures,
        figures={p.get("name", ""): p.get("value", "") for p in root.iter("property")},
    )


def _complaint(case: ElementTree.Element) -> str | None:
    """What a test failed for, in a line; None if it did not."""
    for kind in ("failure", "error"):
        if (found := case.find(kind)) is not None:
            return found.get("message", "").partition("\n")[0]
    return None
