"""Mappings of strangers are small, flat, and say one thing once."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from rlaif_framework import DataError
from rlaif_framework.data.key_lines import find_lines
from rlaif_framework.data.mappings import DEPTH, LARGEST, MAX_VALUES, YamlDumper, read_mapping

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 60))
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 3 * DEPTH))
LONG_NUMBERS = (*("0x" + "f" * 4000, "0o" + "7" * 4000, "-" + "1" * 4000, "9" * 5000, "1." + "5" * 4000),)


def read(tmp_path: Path, text: str, suffix: str = ".yaml") -> dict[str, object]:
    path = tmp_path / f"x{suffix}"
    path.write_text(text)
    return read_mapping(path, "spec")


@pytest.mark.parametrize(
    ("text", "suffix", "reason"),
    [
        (LAUGHS, ".yaml", "values when all aliases are written out"),
        (MERGES, ".yaml", "values when all aliases are written out"),
        (CHAIN, ".yaml", "nested too deeply"),
        ("a: &a [*a]", ".yaml", "line 1 contains an alias of itself"),
        ("a: &a\n  b: {c: *a}", ".yaml", "line 1 contains an alias of itself"),
        ("a: [" + "1," * MAX_VALUES + "]", ".yaml", f"more than {MAX_VALUES:,} values"),
        ("a: " + "[" * 5000 + "]" * 5000, ".yaml", "nested too deeply"),
        ("a: " + "[" * 150 + "]" * 150, ".yaml", "nested too deeply"),
        ("a: 1\na: 2", ".yaml", "duplicate key 'a', first in line 1"),
        ("{b: {a: 1, 'a': 2}}", ".yaml", "duplicate key 'a'"),
        ("{" + '"a": {' * 150 + "}" * 151, ".json", "nested too deeply"),
        ('{"a": ' + "[" * 99999, ".json", "nested too deeply"),
        ('{"a": {"b": 1, "b": 2}}', ".json", "duplicate key 'b'"),
        ("a" + ".a" * 99999 + " = 1", ".toml", "nested too deeply"),
        ("x = {b . 'a'" + ".a" * 99999 + " = 1}", ".toml", "nested too deeply"),
        ("[a" + ' . "b"' * 9999 + "]", ".toml", "nested too deeply"),
        ("a = " + "[" * 5000 + "]" * 5000, ".toml", "nested too deeply"),
        ("a = 1\na = 2", ".toml", "not valid TOML"),
        *((f"\na: {number}", ".yaml", "number in line 2 has more than 100 characters") for number in LONG_NUMBERS),
        ("a: {b: [!!int '" + "9" * 200 + "']}", ".yaml", "number in line 1 has more than 100 characters"),
        ("? 0x" + "f" * 4000 + "\n: 1", ".yaml", "number in line 1 has more than 100 characters"),
        ("a = 0x" + "f" * 4000, ".toml", "it has a number of more than 100 digits"),
        ("a = [{b = 0b" + "1" * 4000 + "}]", ".toml", "it has a number of more than 100 digits"),
        ('{"a": ' + "9" * 4000 + "}", ".json", "it has a number of more than 100 digits"),
        *((f"a: !!{tag} ''", ".yaml", "a value does not fit its tag") for tag in ("int", "float", "bool", "timestamp")),
        ("#" * (LARGEST + 1), ".yaml", f"larger than {LARGEST:,} bytes"),
    ],
)
def test_hostile_files_are_one_message(tmp_path: Path, text: str, suffix: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        read(tmp_path, text, suffix)
    assert str(tmp_path / f"x{suffix}") in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("text", "suffix", "value"),
    [
        ("a: 0xff", ".yaml", 255),
        ("a: " + "9" * 100, ".yaml", 10**100 - 1),
        ("a = 0xff", ".toml", 255),
        ('{"a": -' + "9" * 100 + "}", ".json", 1 - 10**100),
    ],
)
def test_numbers_may_have_a_hundred_digits(tmp_path: Path, text: str, suffix: str, value: int) -> None:
    assert read(tmp_path, text, suffix) == {"a": value}


def test_aliases_and_merges_are_written_out(tmp_path: Path) -> None:
    text = "base: &base {lr: 1.0, steps: 2}\na: {<<: *base, lr: 2.0}\nb: *base\nc: [*base, *base]"
    found = read(tmp_path, text)
    base = {"lr": 1.0, "steps": 2}
    assert found == {"base": base, "a": {"lr": 2.0, "steps": 2}, "b": base, "c": [base, base]}
    assert found["b"] is not found["base"]  # an override changes one place


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_values_may_be_nested_up_to_a_depth(tmp_path: Path, suffix: str) -> None:
    depth = DEPTH - 2  # besides the mapping and the number
    assert read(tmp_path, '{"a": ' + "[" * depth + "1" + "]" * depth + "}", suffix)


@pytest.mark.parametrize(("text", "suffix"), [("a: 1", ".yaml"), ("a = 1", ".toml"), ('{"a": 1}', ".json")])
def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path, text: str, suffix: str) -> None:
    assert read(tmp_path, f"\ufeff{text}", suffix) == {"a": 1}
    assert find_lines(tmp_path / f"x{suffix}") == {("a",): 1}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("017", 17), ("0o17", 15), ("0x1F", 31), ("+1", 1), ("-0", 0)),
        *((".5", 0.5), ("5.", 5.0), ("-.5e3", -500.0), ("1e5", 1e5), ("1E-3", 1e-3), ("1.5e+3", 1500.0)),
        *((".inf", math.inf), ("-.INF", -math.inf), ("!!float 1", 1.0), ("!!int '017'", 17)),
        *((text, text) for text in ("1:30", "190:20:30.15", "0b11", "1_000", "-0x1f", "=", "no", "y", "1e", ".")),
        *((f"{mark}{text}{mark}", text) for text in ("17", "1e5", "true", "null") for mark in "\"'"),
    ],
)
def test_values_without_quotes_are_those_of_yaml_1_2(tmp_path: Path, text: str, value: object) -> None:
    found = read(tmp_path, f"a: {text}")["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text", ["1e5", "1e-5", ".5e3", "0o17", "017", "1:30", "true", "no", "null", "2024-01-01", "x"]
)
def test_a_string_that_is_written_is_read_as_a_string(tmp_path: Path, text: str) -> None:
    values = {text: text, "number": 1e-05, "integer": 17, "flag": True, "nothing": None}
    assert read(tmp_path, yaml.dump(values, Dumper=YamlDumper)) == values
