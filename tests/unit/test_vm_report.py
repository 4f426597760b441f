"""The line and the file that `make vm-test` ends with."""

from __future__ import annotations

from xml.etree import ElementTree

from tools.vm.report import merge

FIRST = b"""<testsuites><testsuite name="pytest"><testcase classname="tests.vm.test_install" name="test_a"/>
</testsuite></testsuites>"""
SECOND = b"""<testsuites><testsuite name="pytest">
<testcase classname="tests.vm.test_boot" name="test_b"><properties><property name="kernel to nine UP" value="31.2 s"/>
</properties></testcase>
<testcase classname="tests.vm.test_lan" name="test_c"><failure message="assert 1 == 2&#10;  and more"/></testcase>
<testcase classname="tests.vm.test_lan" name="test_d"><skipped/></testcase>
</testsuite></testsuites>"""


def test_all_boots_are_in_one_file_and_one_line() -> None:
    outcome = merge({"1.xml": FIRST, "2.xml": SECOND})
    assert outcome.line(99.6) == "vm-test: 2 passed, 1 failed, 1 skipped in 100 s; kernel to nine UP 31.2 s"
    assert outcome.failures == ["tests.vm.test_lan.test_c: assert 1 == 2"]
    assert not outcome.good
    assert len(ElementTree.fromstring(outcome.xml).findall("testsuite")) == 2


def test_a_boot_without_a_report_is_a_failure() -> None:
    outcome = merge({"1.xml": FIRST})
    assert not outcome.good
    assert outcome.failures == ["2 boots were to report, 1 did"]


def test_everything_passed() -> None:
    assert merge({"1.xml": FIRST, "2.xml": FIRST}).good
