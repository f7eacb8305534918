"""Every row of the table of environment references, one case per input."""

import pytest

from emp_trio.errors import ConfigError
from emp_trio.mapping import Piece, SubstitutionError, substitute
from emp_trio.mapping.substitution import MAX_DEPTH, is_secret_name, references

ENV = {"SET": "val", "EMPTY": "", "REF": "${SET}", "café": "coffee"}

VALUES = [
    ("", ""),
    ("plain", "plain"),
    ("${SET}", "val"),
    ("${EMPTY}", ""),
    ("${MISSING:-d}", "d"),
    ("${EMPTY:-d}", "d"),
    ("${SET:-d}", "val"),
    ("${MISSING-d}", "d"),
    ("${EMPTY-d}", ""),
    ("${SET-d}", "val"),
    ("${MISSING:-}", ""),
    ("${SET:?m}", "val"),
    ("${SET?m}", "val"),
    ("${EMPTY?m}", ""),
    ("${SET:+a}", "a"),
    ("${SET+a}", "a"),
    ("${EMPTY:+a}", ""),
    ("${EMPTY+a}", "a"),
    ("${MISSING:+a}", ""),
    ("${MISSING+a}", ""),
    ("${MISSING:-${ALSO:-deep}}", "deep"),
    ("${MISSING:-a${SET}b${SET}c}", "avalbvalc"),
    ("${SET:-${MISSING:?boom}}", "val"),
    ("${SET:-${MISSING}}", "val"),
    ("${MISSING:+${ALSO}}", ""),
    ("$${SET}", "${SET}"),
    ("$$$SET", "$$SET"),
    ("$$$${SET}", "$${SET}"),
    ("$$${SET}", "$val"),
    ("\\${SET}", "\\val"),
    ("$SET", "$SET"),
    ("$", "$"),
    ("cost$", "cost$"),
    ("a $ b", "a $ b"),
    ("$5", "$5"),
    ("pa$SETword$1", "pa$SETword$1"),
    ("${A-B}", "B"),
    ("${MISSING:-a:-b}", "a:-b"),
    ("${MISSING:-https://h:8080/p?q=1}", "https://h:8080/p?q=1"),
    ("${MISSING:-a,b}", "a,b"),
    ('${MISSING:-{"j":1}}', '{"j":1}'),
    ('${SET:-{"j":1}}', "val"),
    ("${SET:-{} } {", "val {"),
    ("${MISSING:-a}b}", "ab}"),
    ("${MISSING:-x}}", "x}"),
    ("${MISSING:- sp }", " sp "),
    ('${MISSING:-"q"}', '"q"'),
    ("${MISSING:-'q'}", "'q'"),
    ("${MISSING:-a\nb}", "a\nb"),
    ("${MISSING:-é漢🎈}", "é漢🎈"),
    ("${REF}", "${SET}"),
    ("${MISSING:-${REF}}", "${SET}"),
    ("${MISSING:-$$}", "$"),
    ("${MISSING:-$${SET}}", "${SET}"),
    ("${MISSING:-$SET}", "$SET"),
    ("{} } { {{", "{} } { {{"),
    ("${MISSING:-{a{b}c}d}e", "{a{b}c}de"),
    ("${SET}${SET}-${SET}", "valval-val"),
    ("${OLLAMA_HOST:-localhost}:${OLLAMA_BASE_PORT:-11434}", "localhost:11434"),
    ("${X:-git@github.com:stakeordie/ComfyUI.git}", "git@github.com:stakeordie/ComfyUI.git"),
    ("${X:-llama3.2,llama3.2:1b}", "llama3.2,llama3.2:1b"),
    ("${_a1:-ok}", "ok"),
]


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_value(text: str, value: str) -> None:
    assert substitute(text, ENV).value == value


MISSING = [
    ("${MISSING}", 1, "MISSING", "MISSING is not set"),
    ("${MISSING:?m}", 1, "MISSING", "m"),
    ("${EMPTY:?m}", 1, "EMPTY", "m"),
    ("${MISSING:?}", 1, "MISSING", "MISSING is not set"),
    ("${EMPTY:?}", 1, "EMPTY", "EMPTY is empty"),
    ("${MISSING?m}", 1, "MISSING", "m"),
    ("${MISSING:?${SET:-x} gone}", 1, "MISSING", "val gone"),
    ("ab ${MISSING} c", 4, "MISSING", "MISSING is not set"),
    ("${EMPTY:-${MISSING}}", 10, "MISSING", "MISSING is not set"),
    ("${SET:+${MISSING}}", 8, "MISSING", "MISSING is not set"),
]


@pytest.mark.parametrize(("text", "column", "variable", "words"), MISSING)
def test_missing_variable(text: str, column: int, variable: str, words: str) -> None:
    with pytest.raises(SubstitutionError) as caught:
        substitute(text, ENV)
    error = caught.value
    assert (error.column, error.variable, error.missing) == (column, variable, True)
    assert error.message.endswith(words)
    assert error.hint
    assert isinstance(error, ConfigError)


SYNTAX = [
    ("${", 1, "not closed"),
    ("a${SET", 2, "not closed"),
    ("${MISSING:-abc", 1, "not closed"),
    ("${MISSING:-${SET}", 1, "not closed"),
    ("${MISSING:-{}", 1, "not closed"),
    ("x ${}", 3, "no variable"),
    ("${:-x}", 1, "no variable"),
    ("${ SET }", 1, "remove the spaces"),
    ("${SET }", 1, "remove the spaces"),
    ("${1A}", 1, "digit"),
    ("${A.B}", 1, "'.'"),
    ("${A!}", 1, "'!'"),
    ("${café}", 1, "'é'"),
    ("${SET:3}", 1, "did you mean `${SET:-3}`?"),
    ("${SET:=x}", 1, "did you mean `${SET:-x}`?"),
    ("${SET=x}", 1, "`:-`"),
    ("${#SET}", 1, "'#'"),
    ("${!SET}", 1, "'!'"),
    ("${SET%l}", 1, "'%'"),
    ("${SET:-${1BAD}}", 8, "digit"),
    ("${SET:-${", 8, "not closed"),
    ("${MISSING:+${A B}}", 12, "remove the spaces"),
    ("${MISSING} ${A.B}", 12, "'.'"),
    ("${$SET}", 1, "'$'"),
]


@pytest.mark.parametrize(("text", "column", "words"), SYNTAX)
def test_wrong_syntax_is_an_error_in_every_branch(text: str, column: int, words: str) -> None:
    with pytest.raises(SubstitutionError) as caught:
        substitute(text, ENV)
    assert caught.value.column == column
    assert words in str(caught.value)
    assert not caught.value.missing


def test_all_missing_variables_of_a_text_come_out_at_once() -> None:
    with pytest.raises(SubstitutionError) as caught:
        substitute("${A1}/${SET}/${B2:-${C3}}/${A1}", ENV)
    error = caught.value
    assert [(e.variable, e.column) for e in (error, *error.also)] == [("A1", 1), ("C3", 20)]


@pytest.mark.parametrize(
    ("name", "env", "meant"),
    [
        ("OLLAMA_PORT", {"OLLAMA_HOST": "h", "OLLAMA_BASE_PORT": "1"}, "OLLAMA_BASE_PORT"),
        ("OPENAI_API_KY", {"OPENAI_API_KEY": "k", "PATH": "p"}, "OPENAI_API_KEY"),
        ("openai_api_key", {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "p"}, "OPENAI_API_KEY"),
    ],
)
def test_hint_names_the_variable_that_was_meant(name: str, env: dict[str, str], meant: str) -> None:
    with pytest.raises(SubstitutionError) as caught:
        substitute(f"${{{name}}}", env)
    assert caught.value.hint == f"did you mean {meant}?"


def test_no_hint_where_nothing_is_near() -> None:
    with pytest.raises(SubstitutionError) as caught:
        substitute("${MISSING}", {"PATH": "", "LANG": ""})
    assert "did you mean" not in caught.value.hint


def test_message_of_a_failed_check_hides_values_of_secret_variables() -> None:
    with pytest.raises(SubstitutionError) as caught:
        substitute("${MISSING:?needs ${A_TOKEN} and ${SET}}", {"A_TOKEN": "hush-hush", "SET": "val"})
    assert caught.value.message == "MISSING: needs *** and val"


def test_pieces_say_where_each_stretch_came_from() -> None:
    done = substitute("http://${HOST}:${PORT:-80${SET}}/${SET:+x}$$", {"HOST": "h", "SET": "val"})
    assert done.pieces == (
        Piece("http://", "literal"),
        Piece("h", "environment", "HOST"),
        Piece(":", "literal"),
        Piece("80", "default", "PORT"),
        Piece("val", "environment", "SET"),
        Piece("/", "literal"),
        Piece("x", "literal", "SET"),
        Piece("$", "literal"),
    )
    assert done.value == "".join(p.text for p in done.pieces)


@pytest.mark.parametrize(
    ("text", "source"), [("${EMPTY}", "environment"), ("${MISSING:-}", "default"), ("${MISSING:+a}", "literal")]
)
def test_a_reference_replaced_by_nothing_still_has_a_piece(text: str, source: str) -> None:
    (piece,) = substitute(text, ENV).pieces
    assert (piece.text, piece.source) == ("", source)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("${SET}", True),
        ("${PORT:-8188}", True),
        ("${A:-${B:-5}}", True),
        ("p${SET}", False),
        ("${SET} ", False),
        ("${SET}${SET}", False),
        ("8188", False),
        ("", False),
        ("$${SET}", False),
        ("${A:-{}}", True),
        ("${A:-x}}", False),
    ],
)
def test_whole_text_is_one_reference(text: str, whole: bool) -> None:
    assert substitute(text, ENV).whole is whole


def test_depth_limit() -> None:
    def nested(levels: int) -> str:
        return "${M:-" * levels + "x" + "}" * levels

    assert substitute(nested(MAX_DEPTH), {}).value == "x"
    for env in ({}, {"M": "set"}):
        with pytest.raises(SubstitutionError, match="32 levels"):
            substitute(nested(MAX_DEPTH + 1), env)
    assert substitute("${M:-" + "{" * 5000 + "}" * 5000 + "}", {}).value == "{" * 5000 + "}" * 5000


def test_references_as_written() -> None:
    found = [(r.variable, r.operator, r.word, r.column, r.nested) for r in references("a${A} ${B:-x${C-y}}")]
    assert found == [("A", "", "", 2, False), ("C", "-", "y", 13, True), ("B", ":-", "x${C-y}", 7, False)]


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("OPENAI_API_KEY", True),
        ("APIKEY", True),
        ("WEBSOCKET_AUTH_TOKEN", True),
        ("COMFYUI_PASSWORD", True),
        ("AZURE_SAS", True),
        ("OPENAI_MAX_TOKENS", False),
        ("OPENAI_BASE_URL", False),
        ("A1111_COMMIT_HASH", False),
    ],
)
def test_secret_by_name(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret
