"""Mask text with the format of a secret: vendors' keys, bearer tokens, passwords in URLs, ``api_key=value``.

Pure, and linear in the text: one fast search, which rarely finds anything, then one pass.
"""

from __future__ import annotations

import re
from typing import Final

from emp_trio.secrets.names import is_secret_name
from emp_trio.secrets.secret import MASK

_PARAMETER: Final = "(?i:sig|signature|x-amz-signature|x-goog-signature|key|code)="
_SEPARATOR: Final = r"""[\w.-]{0,40}(?:\\{0,3}["']\s{0,2}:\s{0,2}\\{0,3}["']|\s?=\s?\\{0,3}["']?)"""
# Every name of a secret contains one of these before its end and a separator.
_WORDS: Final = (
    "secret token passw passp passc pass pwd key auth credential cookie conn jwt sas sharedacc bearer signature totp"
).split()
# Matches literal beginnings only, so that other text is skipped fast. The rule of the beginning parses what follows.
_BEGINNING: Final = re.compile(
    "".join(f"{first}(?i:{word[1:]}){_SEPARATOR}|" for word in _WORDS for first in (word[0], word[0].upper()))
    + "".join(f"{mark}{_PARAMETER}|" for mark in (r"\?", "&"))
    + r"sk-|AIza|hf_|gh[oprsu]_|github_pat_|xox[abprs]-|eyJ|b(?i:earer|asic)|B(?i:earer|asic)|://"
    + r"|-----BEGIN [A-Z0-9 ]{0,24}PRIVATE KEY-----"
)
_SHORT: Final = re.compile(r"[A-Za-z0-9_-]{8,}")
_LONG: Final = re.compile(r"[A-Za-z0-9_-]{16,}")
_JWT: Final = re.compile(r"[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?")
_SCHEME: Final = re.compile(r"(?:\s|%20|\+){1,4}[A-Za-z0-9._~+/=%-]{8,}")
_LOGIN: Final = re.compile(r"([^/\s:@]*:)[^/\s@]+(?=@)")
_IN_QUERY: Final = re.compile(r"""[^&\s"']+""")
_CODE: Final = re.compile(r"""[^&\s"']{16,}""")  # key of an Azure function; a shorter value is an error code
_QUOTED: Final = re.compile(r"""[^"']*[^"'\\]""")
_GIVEN: Final = re.compile(r"""[^\s"'&;,)}\]<>\\]+""")
_SAS: Final = re.compile(r"""[^;\s"']+""")
_PEM: Final = re.compile(r"(?:[A-Za-z0-9+/=:,\s\\]|-(?!----))+")  # also with escaped line breaks
_NAME: Final = re.compile(r"[\w.-]*")
# A text without any of these has no beginning: the fastest test for short text.
_MARK: Final = re.compile(
    r"""=|://|-----B|"\s{0,2}:|'\s{0,2}:|sk-|AIza|hf_|gh[oprsu]_|github_pat_|xox[abprs]-|eyJ|b(?i:earer|asic)|B(?i:earer|asic)"""
)
_BRIEF: Final = 1024
# Every beginning contains one of these: substring search is the fastest test for long text.
_SUSPECT: Final = [
    *"sk- aiza bearer basic :// sig= signature= code= hf_ gho_ ghp_ ghr_ ghs_ ghu_ github_pat xox eyj".split(),
    *_WORDS,
]


def without_shapes(text: str, *, signatures: bool = True) -> str:
    """Replace everything with the format of a secret by ``***``.

    Args:
        signatures: whether to mask signatures of URLs, too.
    """
    if len(text) <= _BRIEF and not _MARK.search(text):
        return text
    small = text.lower()
    if not any(word in small for word in _SUSPECT):
        return text
    parts, end, place = [], 0, 0
    while found := _BEGINNING.search(text, place):
        if signatures or "sig" not in found[0].lower():
            start, stop = _secret_at(text, found)
        else:
            start = stop = 0
        if start < stop:
            parts += [text[end:start], MASK]
            end = stop
        place = max(found.end(), stop)
    return "".join([*parts, text[end:]]) if parts else text


def _secret_at(text: str, match: re.Match[str]) -> tuple[int, int]:
    """Return the span of the secret after a beginning, or (0, 0) if there is none.

    To stay linear, each rule ends before a character that can begin the next match, or gives up after a bounded number
    of characters.
    """
    hit, at, after = match[0], match.start(), match.end()
    if hit == "://":
        login = _LOGIN.match(text, after)
        return (login.end(1), login.end()) if login is not None else (0, 0)
    if hit[0] == "-":
        secret = _PEM.match(text, after)
    elif hit[0] in "?&":
        secret = (_CODE if hit[1:].lower() == "code=" else _IN_QUERY).match(text, after)
    elif hit[-1] in "=\"' \t\n\\":
        return _named(text, match)
    elif at and (text[at - 1].isalnum() or (hit == "eyJ" and text[at - 1] in "_-")):
        return 0, 0  # in the middle of a word
    elif hit == "eyJ":
        secret = _JWT.match(text, after)
    elif hit[0] in "bB":
        secret = _SCHEME.match(text, after)
        after += 1
    else:
        secret = (_SHORT if hit in ("sk-", "AIza") else _LONG).match(text, after)
    return (after, secret.end()) if secret is not None else (0, 0)


def _named(text: str, match: re.Match[str]) -> tuple[int, int]:
    """Return the span of the value after a name; the name may begin before the matched word."""
    begun = _NAME.match(text[max(0, match.start() - 64) : match.start()][::-1])
    rest = _NAME.match(match[0])
    name = (begun[0][::-1] if begun is not None else "") + (rest[0] if rest is not None else "")
    if not is_secret_name(name.lstrip("-._0123456789")):
        return 0, 0
    separator = match[0][rest.end() if rest is not None else 0 :]
    rule = _QUOTED if separator[-1:] in ("'", '"') else _SAS if "signature" in name.lower() else _GIVEN
    value = rule.match(text, match.end())
    return (match.end(), value.end()) if value is not None else (0, 0)
