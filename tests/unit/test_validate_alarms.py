"""Which alarms a portal may raise, and where they may be sent."""

from __future__ import annotations

import pytest

from tests.unit.test_config import HUB, SITE, changed, problems_of


@pytest.mark.parametrize(
    ("alarm", "problem"),
    [
        ('kind = "loss", above = 0.99', None),
        ('kind = "loss", above = 5', "above: 5 is never exceeded: the value is a ratio of lost to sent, from 0 to 1"),
        ('kind = "loss", above = 1', "above: 1 is never exceeded"),
        ('kind = "loss", above = inf', "above: inf is never exceeded"),
        ('kind = "loss", above = nan', "above: Expected `float` >= 0.0"),
        ('kind = "asymmetric", above = 10', "above: 10 is never exceeded"),
        ('kind = "rtt", above = 300', "above: 300 is never exceeded: the value is seconds"),
        ('kind = "rtt", above = 29', None),
        ('kind = "flapping", above = 1000', "above: 1000 is never exceeded"),
        ('kind = "flapping", above = 3, seconds = 0', "seconds: is what falls are counted over: must be above 0"),
        ('kind = "quota", above = 100_000', None),
        ('kind = "quota", above = inf', "above: inf is never exceeded"),
        ('kind = "quota"', "above: is missing"),
        ('kind = "down", above = 1', "above: is not for `down`"),
        ('kind = "down", clear = 1', "clear: is not for `down`"),
        ('kind = "rtt", above = 0.1, clear = inf', "clear: is above `above`"),
        ('kind = "down", of = ["critical"]', None),
        (
            'kind = "down", of = ["critical", "crit"]',
            'of[1]: no tunnel, WAN or class "crit" (did you mean "critical"?)',
        ),
        ('kind = "down", of = ["all"]', 'of[0]: no tunnel, WAN or class "all"'),
    ],
)
@pytest.mark.parametrize("sample", [SITE, HUB], ids=["site", "hub"])
def test_alarms(sample: str, alarm: str, problem: str | None) -> None:
    found = problems_of(sample + f'[portal]\nalarm = [{{ name = "a", {alarm} }}]\n')
    if problem is None:
        assert found == []
    else:
        assert len(found) == 1
        assert found[0].startswith(f"portal.alarm[0].{problem}")


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (SITE, ["cr1", "df3", "wan4", "wan6", "bulk"]),
        (changed(SITE, ("[supervisor]", "[matrix]\nwan6 = []\n[supervisor]")), ["mpq6", "all"]),
        (HUB, ["mt4", "mt5.critical", "bulk"]),
    ],
)
def test_whom_an_alarm_may_be_of(sample: str, words: list[str]) -> None:
    assert problems_of(sample + f'[portal]\nalarm = [{{ name = "a", kind = "down", of = {words} }}]\n') == []


def test_whom_an_alarm_is_of_is_not_asked_where_the_names_cannot_be_read() -> None:
    alarm = '[portal]\nalarm = [{ name = "a", kind = "down", of = ["cr3", "wan9"] }]\n'
    (found,) = problems_of(changed(SITE, ('name = "wan6"', 'name = "wan 6"')) + alarm)
    assert found.startswith("wan[2].name: ")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://alarms.example.net/a?b=c&d=%20#e", None),
        ("http://[2001:db8::1]:8080/x", None),
        ("http://192.0.2.1", None),
        ("http://xn--bcher-kva.example./", None),
        ("ftp://x", "must begin with https:// or http://"),
        ("https://", "its host is neither a name nor an address"),
        ("https:///x", "its host is neither a name nor an address"),
        ("https://a b/", "has a space or a character that is not ASCII"),
        ("https://bücher.example/", "has a space or a character that is not ASCII"),
        ("https://a/ä", "has a space or a character that is not ASCII"),
        ("https://a:99999/", "its host or port cannot be read"),
        ("https://a:https/", "its host or port cannot be read"),
        ("https://a:0/", "port 0 is nobody's"),
        ("https://[::1/", "its host or port cannot be read"),
        ("https://ann:secret@a/", "has a user or a password, which are not sent"),
        ("https://" + "x" * 64 + ".example/", "its host is neither a name nor an address"),
        ("https://a..b/", "its host is neither a name nor an address"),
        ("https://%41/", "its host is neither a name nor an address"),
        ("https://[v1.x]/", "its host or port cannot be read"),
    ],
)
def test_webhooks(url: str, problem: str | None) -> None:
    found = problems_of(SITE + f'[portal]\nwebhook = {{ url = "{url}", secret_file = "/s" }}\n')
    if problem is None:
        assert found == []
    else:
        assert [line.startswith(f"portal.webhook.url: {problem}") for line in found] == [True]
        assert "secret" not in found[0]
