"""YAML is read as people mean it, and what is written is read back as it was, by this reader and by PyYAML's own."""

from __future__ import annotations

import pytest
import yaml

from sphereface.yaml_text import dump_yaml, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-1", 0.1), ("1e5", 1e5), ("1E5", 1e5), (".5e3", 500.0), (".5", 0.5), ("5.", 5.0), ("-1.5e-3", -0.0015),
        ("+0.1", 0.1), ("0", 0), ("45", 45), ("-3", -3), ("0.0", 0.0),
        ("010", "010"), ("0045", "0045"), ("0o10", "0o10"), ("0x1F", "0x1F"), ("0b11", "0b11"), ("1_000", "1_000"),
        ("1:30", "1:30"), ("1:30.5", "1:30.5"), ("007e1", "007e1"), (".inf", ".inf"), (".nan", ".nan"), ("nan", "nan"),
        ("yes", "yes"), ("No", "No"), ("on", "on"), ("OFF", "OFF"), ("y", "y"), ("=", "="),
        ("2026-01-01", "2026-01-01"), ("2024-13-45", "2024-13-45"), ("2026-01-01 10:00:00", "2026-01-01 10:00:00"),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None), ("'45'", "45"), ('"true"', "true"),
    ],
)  # fmt: skip
def test_a_value_is_what_people_mean(text, value):
    for found in (parse_yaml(text), parse_yaml(f"a: [{text}]")["a"][:1] if text else [None]):
        found = found[0] if isinstance(found, list) else found
        assert (found, type(found)) == (value, type(value))


def test_every_key_is_a_text():
    found = parse_yaml("{1: a, yes: b, null: c, 1.5: d, 010: e, true: {2: 3}}")
    assert found == {"1": "a", "yes": "b", "null": "c", "1.5": "d", "010": "e", "true": {"2": 3}}


def test_anchors_and_merges_work():
    text = "a: &x {b: 1, 3: 4}\nc: {<<: *x, b: 2}\nd: [*x, *x]\ne: {<<: [{5: 6}, *x]}"
    ours = {"b": 1, "3": 4}
    assert parse_yaml(text) == {"a": ours, "c": {"3": 4, "b": 2}, "d": [ours, ours], "e": {"5": 6, **ours}}


def lol(item, around):
    lines = [f"a0: &a0 {item}"] + [f"a{n}: &a{n} {around(', '.join([f'*a{n - 1}'] * 9))}" for n in range(1, 30)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("? [a]\n: b", "a list or a mapping as a key in line 1"),
        ("{{a: 1}: b}", "a list or a mapping as a key"),
        ("seed: 1\nlr: 2\nseed: 3", "the key 'seed' occurs twice, again in line 3"),
        ("a: {1: x, '1': y}", "the key '1' occurs twice"),
        ("a: &x [*x]", "contains itself"),
        ("&a {b: *a}", "contains itself"),
        ("&a {<<: *a}", "contains itself"),
        (lol("[lol]", "[{}]".format), "expands to more than 100,000 values"),
        (lol("{x: 1}", "{{<<: [{}]}}".format), "expands to more than 100,000 values"),
        ("[" * 50_000, "nested too deeply"),
        ("{a: " * 50_000, "nested too deeply"),
        ("- " * 50_000, "nested too deeply"),
        ("a: 1" + "0" * 5000, "digits"),
        ("a: \0", "special characters are not allowed"),
        ("\t- a", "cannot start any token"),
        ("a: [", "expected the node content"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("!!bool maybe", "maybe"),
        ("!!int 0x1F", "invalid literal"),
        ("!!float x", "could not convert"),
        ("!!timestamp x", ""),
        ("!!map [1]", "expected a mapping node"),
        ("--- a\n--- b", "expected a single document"),
        ("a: *nothing", "undefined alias"),
        ("<<: 1", "expected a mapping or list of mappings"),
    ],
)
def test_what_cannot_be_is_one_line(text, reason):
    with pytest.raises(ValueError, match=r"^[^\n]{1,400}$") as raised:
        parse_yaml(text)
    assert reason in str(raised.value)


def test_its_own_output_is_read_back_by_both_readers():
    texts = ["0089", "0045", "1e5", "12e5", ".5", "+5", "-", "1_0", "0x1F", "0o7", "1:30", "yes", "On", "null", "~", "",
             "true", "2026-01-01", "=", "<<", "nan", ".inf", "a: b", "- x", "#", "ü", "a\nb", " a", "45"]  # fmt: skip
    values = {"texts": texts, "floats": [1e-05, 1e16, 0.1, 5.0, -2.5e-300], "ints": [1, -3, 0, 10**20], "no": None}
    written = dump_yaml(values)
    assert parse_yaml(written) == yaml.safe_load(written) == values
    assert list(parse_yaml(written)) == list(values)
