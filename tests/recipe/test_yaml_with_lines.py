import pytest

from tapetum.recipe.yaml_with_lines import RecipeError, read_yaml, write_yaml


def read(text):
    return read_yaml(text, lambda line: f"line {line}")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("-1.5e+2", -150.0),
        ("3", 3),
        ("-3", -3),
        ("010", 10),
        ("0x10", 16),
        ("1_000", "1_000"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("no", "no"),
        ("2024-01-01", "2024-01-01"),
        ("12:30", "12:30"),
        ("'1e-6'", "1e-6"),
        ("[0.3, 1]", [0.3, 1]),
        ("{a: 1, b: {c: on}}", {"a": 1, "b": {"c": "on"}}),
    ],
)
def test_scalars_are_what_they_look_like(text, value):
    found = read(text).plain()
    assert found == value
    assert type(found) is type(value)


def test_every_value_knows_the_line_of_its_key():
    root = read("a: 1\nb:\n  c: 2\n\n  d:\n    - 3\n")
    assert root.value["b"].place == "line 2"
    assert root.value["b"].value["c"].place == "line 3"
    assert root.value["b"].value["d"].place == "line 5"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' is given twice, first in line 1"),
        ("a: &x 1\nb: *x", "line 2: this is not valid YAML here: .*write the value itself"),
        ("a: !!python/object/apply:os.system ['true']", "line 1: the tag .* is not allowed"),
        ("a: !thing 3", "line 1: the tag '!thing' is not allowed"),
        ("a: !!int x", "line 1: 'x' is no int"),
        ("a: 1\nb: [1, 2", "line 2: this is not valid YAML"),
        ("a: 1\n\tb: 2", "line 2: this is not valid YAML"),
        ("a\x00b", "line 1: the file is not text"),
        ("[1, 2]: 3", "line 1: a key must be a single word"),
        ("a: 1\n---\nb: 2", "line 2: this is not valid YAML"),
        ("[" * 2000, "nested too deeply"),
    ],
)
def test_errors_name_the_line(text, message):
    with pytest.raises(RecipeError, match=message):
        read(text)


def test_written_values_are_read_back_by_us_and_by_others():
    yaml = pytest.importorskip("yaml")
    value = {
        "words": ["on", "no", "null", "1e-6", "1.5", "12:30", "2024-01-01", "", "~", "a: b", "# c", "ü", "two\nlines "],
        "numbers": [1e-6, 1e22, 0.1 + 0.2, 3, -1, 5e-324],
        "rest": [True, False, None],
        "empty": {"list": [], "mapping": {}},
    }
    text = write_yaml(value)
    assert read(text).plain() == value
    assert yaml.safe_load(text) == value
