"""Texts that are secret by their look: keys of vendors, bearer tokens, passwords in URLs, ``name=value`` with a name
that says so. Pure, and linear in the text: after one quick look, which nearly always finds nothing, one pass.
"""

from __future__ import annotations

import re
from typing import Final

from emp_trio.secrets.names import is_secret_name
from emp_trio.secrets.secret import MASK

_PARAMETER: Final = "(?i:sig|signature|x-amz-signature|x-goog-signature|key|code)="
_SEPARATOR: Final = r"""[\w.-]{0,40}(?:\\{0,3}["']\s{0,2}:\s{0,2}\\{0,3}["']|\s?=\s?\\{0,3}["']?)"""
# In a name that is that of a secret, before its end and a separator.
_WORDS: Final = (
    "secret token passw passp passc pass pwd key auth credential cookie conn jwt sas sharedacc bearer signature totp"
).split()
# Begins with plain characters only, so that whatever can't be the beginning of one is passed over quickly. What follows
# is read by the rule of the beginning.
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
_CODE: Final = re.compile(r"""[^&\s"']{16,}""")  # of a function; a shorter one is the number of an error
_QUOTED: Final = re.compile(r"""[^"']*[^"'\\]""")
_GIVEN: Final = re.compile(r"""[^\s"'&;,)}\]<>\\]+""")
_SAS: Final = re.compile(r"""[^;\s"']+""")
_PEM: Final = re.compile(r"(?:[A-Za-z0-9+/=:,\s\\]|-(?!----))+")  # also with line breaks that are escaped
_NAME: Final = re.compile(r"[\w.-]*")
# Without one of these there is no beginning: the quickest look at a short text.
_MARK: Final = re.compile(
    r"""=|://|-----B|"\s{0,2}:|'\s{0,2}:|sk-|AIza|hf_|gh[oprsu]_|github_pat_|xox[abprs]-|eyJ|b(?i:earer|asic)|B(?i:earer|asic)"""
)
_BRIEF: Final = 1024
# Anything that could be one of them has one of these in it: looking for plain texts is quickest in a long one.
_SUSPECT: Final = [
    *"sk- aiza bearer basic :// sig= signature= code= hf_ gho_ ghp_ ghr_ ghs_ ghu_ github_pat xox eyj".split(),
    *_WORDS,
]


def without_shapes(text: str, *, signatures: bool = True) -> str:
    """``text`` with ``***`` in place of whatever looks like a secret.

    Args:
        signatures: whether those of signed URLs go, too.
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


def _secret_at(text: str, found: re.Match[str]) -> tuple[int, int]:
    """Where the secret behind a beginning starts and stops; nowhere (0, 0) where there is none.

    No rule reads again what another try has read: each ends before a character with which the next one may begin, or
    gives up after a bounded number of characters.
    """
    hit, at, after = found[0], found.start(), found.end()
    if hit == "://":
        login = _LOGIN.match(text, after)
        return (login.end(1), login.end()) if login is not None else (0, 0)
    if hit[0] == "-":
        secret = _PEM.match(text, after)
    elif hit[0] in "?&":
        secret = (_CODE if hit[1:].lower() == "code=" else _IN_QUERY).match(text, after)
    elif hit[-1] in "=\"' \t\n\\":
        return _named(text, found)
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


def _named(text: str, found: re.Match[str]) -> tuple[int, int]:
    """The value behind a name, which may have begun before the word that was found in it."""
    begun = _NAME.match(text[max(0, found.start() - 64) : found.start()][::-1])
    rest = _NAME.match(found[0])
    name = (begun[0][::-1] if begun is not None else "") + (rest[0] if rest is not None else "")
    if not is_secret_name(name.lstrip("-._0123456789")):
        return 0, 0
    separator = found[0][rest.end() if rest is not None else 0 :]
    rule = _QUOTED if separator[-1:] in ("'", '"') else _SAS if "signature" in name.lower() else _GIVEN
    value = rule.match(text, found.end())
    return (found.end(), value.end()) if value is not None else (0, 0)
