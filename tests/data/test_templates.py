"""Templates read what they are given, change nothing, and end."""

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2 import Environment, StrictUndefined

from rlaif_framework.data.templates import LIMIT, LONGEST, Template, TemplateFault

MUCH = "takes too much work"
NESTED = "nested too deeply"
SHARED = (  # lists that hold one list twice, 60 levels deep, twice
    "{% set n = namespace(a=(1,), b=(1,)) %}{% for i in range(60) %}"
    "{% set n.a = (n.a, n.a) %}{% set n.b = (n.b, n.b) %}{% endfor %}"
)
DOUBLED = "{{% set n = namespace(a={}) %}}{{% for i in range(60) %}}{{% set n.a = n.a {} n.a %}}{{% endfor %}}"
MANY = "{%% for i in range(99999) %%}%s{%% endfor %%}"
LARGE = "{% set s = 'a' * 999999 %}{% set t = 'a' * 999999 %}"

ESCAPES = [
    "{{ lipsum.__globals__['os'].system('touch owned') }}",
    "{{ cycler.__init__.__globals__.os.system('touch owned') }}",
    "{{ joiner('a').__class__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ post['__class__'] }}",
    "{{ post|attr('__class__') }}",
    "{{ '{0.__class__}'.format(post) }}",
    "{{ '{a.__class__}'.format_map({'a': post}) }}",
    "{{ [post]|map(attribute='__class__')|list }}",
    "{{ [post]|map('attr', '__class__')|list }}",
    "{{ ([post]|map('string')).gi_frame }}",
    "{{ namespace.__init__ }}",
    "{% set n = namespace() %}{% set n.__class__ = 1 %}",
    "{{ namespace(__call__=1) }}",
    "{% macro m() %}{% endmacro %}{{ m._func }}",
    "{% for i in [1] %}{{ loop._iterator }}{% endfor %}",
    "{{ nothing.__class__ }}",
    "{{ dict.fromkeys([1]) }}",
    "{{ [1].append(2) }}",
    "{{ {}.update({1: 2}) }}",
    "{% include '/etc/passwd' %}",
    "{% import '/etc/passwd' as p %}",
    "{% extends '/etc/passwd' %}",
]

ENDLESS = {
    "{% for i in range(10**9) %}{% endfor %}": "Range too big",
    MANY % (MANY % ""): MUCH,
    MANY % "{% for j in range(99999) if j < 0 %}{% endfor %}": MUCH,
    "{% for i in range(99999) recursive %}{{ loop(range(99999)) if loop.depth < 9 }}{% endfor %}": MUCH,
    "{% for i in [1] recursive %}{{ loop([i]) }}{% endfor %}": NESTED,
    "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}": NESTED,
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}": MUCH,
    "{% macro m() %}{% endmacro %}{% set l = [1] * 99999 %}{{ m(*l) }}{{ m(*l) }}": "macro 'm' takes",
    "{% block a %}{{ self.a() }}{% endblock %}": NESTED,
    MANY % ("x" * 9999): MUCH,
    MANY % ("{% set a = [" + "1," * 5000 + "] %}"): MUCH,
    "{{ 'a' * 10**9 }}": MUCH,
    "{{ 10**9 * 'a' }}": MUCH,
    "{{ [0] * 10**9 }}": MUCH,
    "{{ 9**9**9**9**9 }}": MUCH,
    "{{ 2**100000000 }}": MUCH,
    "{{ ('f' * 99999)|int(base=16) }}": MUCH,
    "{{ 'a'|center(10**9) }}": MUCH,
    "{{ 'a'|indent(10**9) }}": MUCH,
    "{{ ('a\n' * 99999)|indent('b' * 99999) }}": MUCH,
    "{{ 'a'.ljust(10**9) }}": MUCH,
    "{{ 'a'.rjust(10**9) }}": MUCH,
    "{{ 'a'.center(10**9) }}": MUCH,
    "{{ 'a'.zfill(10**9) }}": MUCH,
    "{{ '%1000000000d' % 1 }}": MUCH,
    "{{ '%*d' % (1000000000, 1) }}": MUCH,
    "{{ '%1000000000d'|format(1) }}": MUCH,
    "{{ '{:1000000000}'.format(1) }}": MUCH,
    "{{ '{:{}}'.format(1, 1000000000) }}": MUCH,
    "{{ ('%(a)s' * 9999) % {'a': 'b' * 99999} }}": MUCH,
    "{{ range(99999)|join('x' * 99999) }}": MUCH,
    "{{ ('b' * 99999).join('a' * 9999) }}": MUCH,
    "{{ ('a' * 9999)|replace('a', 'b' * 99999) }}": MUCH,
    "{{ ('a' * 9999)|replace(new='b' * 99999, old='a') }}": MUCH,
    "{{ ('a' * 9999).replace('a', 'b' * 99999) }}": MUCH,
    "{{ ('a' * 900000).strip('b' * 900000 ~ 'a') }}": MUCH,
    "{{ [1]|batch(10**9, 0)|list }}": MUCH,
    "{{ [1]|slice(10**9)|list }}": MUCH,
    "{{ 1.5|round(10**9, 'ceil') }}": MUCH,
    "{{ [[1]]|tojson(indent=10**9) }}": "up to 16",
    "{{ [[1]]|sum(start=[]) }}": "adds numbers",
    "{% autoescape 'a'|center(10**9) %}{% endautoescape %}": MUCH,
    DOUBLED.format("'aaaaaaaaaa'", "~"): MUCH,
    DOUBLED.format("'aaaaaaaaaa'", "+"): MUCH,
    DOUBLED.format("[1]", "+"): MUCH,
    DOUBLED.format("2**4000", "+") + DOUBLED.format("2**4000", "*"): MUCH,
    SHARED + "{{ n.a }}": MUCH,
    SHARED + "{{ n.a ~ '' }}": MUCH,
    SHARED + "{{ n.a == n.b }}": MUCH,
    SHARED + "{{ n.a is eq(n.b) }}": MUCH,
    SHARED + "{{ n.a|string }}": MUCH,
    SHARED + "{% set s = n.a|safe %}": MUCH,
    SHARED + "{{ n.a|tojson }}": MUCH,
    SHARED + "{{ raise_exception(n.a) }}": MUCH,
    SHARED + "{{ post[n.a|list] }}": MUCH,
    SHARED + "{{ [n.a, n.b]|sort }}": MUCH,
    SHARED + "{{ '%s' % n.a }}": MUCH,
    SHARED + "{{ '{}'.format(n.a) }}": MUCH,
    SHARED + "{{ {n.a: 1} }}": MUCH,
    SHARED + "{{ {1: 1}[n.a] }}": MUCH,
    SHARED + "{{ {1: 1}.get(n.a) }}": MUCH,
    SHARED + "{{ [1].index(n.a) }}": MUCH,
    LARGE + MANY % "{% set b = s[1:] %}": MUCH,
    LARGE + MANY % "{{ s == t }}": MUCH,
    LARGE + MANY % "{{ 'b' in s }}": MUCH,
    LARGE + MANY % "{{ s is upper }}": MUCH,
    LARGE + "{% set g = s|groupby('a', t) %}": MUCH,
    MANY % "{% set q = 2.5 in range(99999) %}": MUCH,
    "{% set r = range(99999) %}" + MANY % "{% set q = 2.5 in r %}": MUCH,
    "{% set r = range(99999) %}" + MANY % "{% set q = r|max %}": MUCH,
    LARGE + MANY % "{% set b = s|upper %}": MUCH,
    LARGE + MANY % "{% set b = s.upper() %}": MUCH,
    LARGE + "{{ s|list|length }}": MUCH,
    "{{ range(9999)|map('string')|map(attribute='" + "0." * 99999 + "0')|list }}": MUCH,
    "{% set d = dict(a=1) %}{% set l = [['a', 1]] * 99999 %}" + MANY % "{% set n = namespace(l) %}": MUCH,
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}": NESTED,
    "{{ " + "1 + " * 20000 + "1 }}": NESTED,
    "{% if 1 %}" * 300 + "{% endif %}" * 300: NESTED,
    "x" * (LONGEST + 1): "longer than",
}

MISTAKES = {
    "a\n{{ 1 / 0 }}": "line 2: division by zero",
    "a\n\n{{ nothing }}": "line 3: 'nothing' is undefined",
    "a\n{{ post + 1 }}": "line 2: can only concatenate",
    "a\n{{ post": "line 2: unexpected end of template",
    "{% for a, b in [1] %}{% endfor %}": "line 1: cannot unpack",
    "\n{{ post|nothing }}": "line 2: No filter named 'nothing'",
    "{{ raise_exception('not today') }}": "line 1: not today",
    "{{ [post]|map('upper') }}": "use the filter 'list' or 'join'",
    "{{ '\\ud800' }}": "surrogate",
}

# What the templates of tasks and annotators may do, with the result of an ordinary environment.
PLAIN = [
    "{% if title %}TITLE: {{ title }}\n\n{% endif %}POST: {{ post }}\n\nTL;DR:\n",
    "{{ post|trim|upper|replace('L', 'w') }}{{ post.strip().split()[0].title() }}",
    "{% for word in post.split() if word != 'it' %}{{ loop.index }}/{{ loop.length }} {{ word }}"
    "{{ ', ' if not loop.last }}{% else %}none{% endfor %}",
    "{% macro quote(text, mark='-') %}{{ mark }}{{ text }}{{ mark }}{% endmacro %}{{ quote(post) }}{{ quote(1, '*') }}",
    "{% macro list() %}{% for i in [1, 2] %}{{ caller(i) }};{% endfor %}{% endmacro %}"
    "{% call(i) list() %}{{ i * 2 }}{% endcall %}",
    "{% set n = namespace(total=0) %}{% for i in range(5) %}{% set n.total = n.total + i %}{% endfor %}{{ n.total }}",
    "{{ '%-8s|%5.2f' % (title, 2.5) }}{{ '{:>5}{}'.format(title, 3) }}{{ '%s'|format(post) }}",
    "{{ [3, 1, 2]|sort|join('-') }}{{ [{'a': 2}, {'a': 1}]|map(attribute='a')|sum }}{{ post[1:4] ~ 7 ~ true }}",
    "{{ {'b': 1, 'a': [1, 'x']}|dictsort }}{{ {'a': 1}.items()|list }}{{ {'a': 1}.get('b', 2) }}",
    "{% filter upper %}{{ post }}{% endfilter %}{% set x %}a{{ post }}{% endset %}{{ x|length }}",
    "{% for k, g in [['a', 1], ['b', 2], ['a', 3]]|groupby(0) %}{{ k }}{{ g|map('last')|list }}{% endfor %}",
    "{% for i in [1, [2, [3]]] recursive %}{{ loop(i) if i is iterable else i }}{% endfor %}",
    "{{ 7 // 2 }} {{ 7 % 2 }} {{ 2 ** 10 }} {{ -3|abs }} {{ 2.345|round(1) }} {{ 1 < 2 <= 2 and 'a' in post }}",
    "{{ post|default('x') }}{{ (title or 'none')|first }}{{ post|wordcount }}{{ 'a' if post is string else 'b' }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_a_template_reaches_nothing_but_its_values(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for chat in (False, True):
        with pytest.raises(TemplateFault):
            Template("t", source, chat).render(post="hello")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("source", "reason"), ENDLESS.items())
def test_a_template_ends(source: str, reason: str) -> None:
    with pytest.raises(TemplateFault, match=reason):
        Template("t", source).render(post="hello")


@pytest.mark.parametrize(("source", "reason"), MISTAKES.items())
def test_a_mistake_is_named_with_its_line(source: str, reason: str) -> None:
    with pytest.raises(TemplateFault) as caught:
        Template("task.template", source).render(post="hello")
    assert reason in str(caught.value)
    assert str(caught.value).startswith("task.template")
    assert str(caught.value).endswith(caught.value.reason)


@pytest.mark.parametrize("source", PLAIN)
def test_counting_changes_no_result(source: str) -> None:
    values = {"post": " My dog ate it. ", "title": "Dog"}
    ordinary = Environment(undefined=StrictUndefined, keep_trailing_newline=True).from_string(source)
    assert Template("t", source).render(**values) == ordinary.render(**values)


def test_the_bound_is_in_units_of_work_and_grows_with_the_values() -> None:
    loop = Template("t", "{% for i in range(n) %}{% endfor %}")
    half = LIMIT // 20  # a range of n numbers, and n iterations, are 10 units each
    with pytest.raises(TemplateFault, match=MUCH):
        Template("t", "{% for i in range(99999) %}{% for i in range(9) %}{% endfor %}{% endfor %}").render()
    assert loop.render(n=min(half, 99999)) == ""
    text = "word " * 1_000_000
    assert Template("t", "{{ post.strip().upper() }}{{ post|trim }}").render(post=text) == (
        text.strip().upper() + text.strip()
    )


def test_no_warning_is_printed(recwarn: pytest.WarningsRecorder) -> None:
    Template("t", "{% if post == 'x' %}{{ 1[2] }}{{ none() }}{% endif %}").render(post="hello")
    assert not recwarn.list


def test_json_is_not_escaped_for_pages() -> None:
    assert Template("t", "{{ post|tojson }}").render(post="<a> & 'é'") == "\"<a> & 'é'\""
    assert Template("t", "{{ [1]|tojson(indent=2) }}").render() == "[\n  1\n]"


def test_the_names_that_a_template_reads_are_known_without_computing_anything() -> None:
    source = (
        "{% for i in range(3) %}{{ a.b ~ row['c d'] }}{% endfor %}{% if e is defined %}{{ 9 ** 9 ** 9 }}{% endif %}"
    )
    assert Template("t", source).names == {"a", "row", "e"}
    assert "i" in Template("t", "{% for i in a %}{{ i }}{% endfor %}").names, "variables of the template are names, too"
