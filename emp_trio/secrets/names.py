"""Recognise names of secrets, for logs, stored requests, the mapping and the command line alike. Pure.

A name is split into words: ``x-functions-key``, ``functions_key``, ``functionsKey`` and ``FunctionsKey`` are equal.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Any, Final

_WORD: Final = re.compile(r"[A-Z]{2,}s?(?![a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
_NAME: Final = re.compile(r"[\w.\- ]{1,200}")  # anything else is text, not a name

_ANYWHERE: Final = frozenset("password passwd passphrase passcode pwd credential".split())
_LAST: Final = frozenset("secret token authorization auth bearer cookie jwt sas otp totp".split())
_OF_LOGINS: Final = frozenset(["", *"user db database smtp mail redis http proxy ftp admin root auth basic".split()])
_KEYS: Final = frozenset(
    "api access account storage private secret auth master shared encryption signing subscription function functions "
    "service admin client app license ssh deploy webhook host anon role session hmac aes consumer pem "
    "openai azure gemini google gcp aws anthropic comfy hf huggingface stability replicate fal runpod groq "
    "mistral cohere deepseek openrouter xai elevenlabs stripe sendgrid twilio github gitlab slack discord".split()
)  # a key of these is a credential; a foreign key, a primary key or the key of a blob is not
_PHRASES: Final = (
    "apikey accesskey accountkey storagekey privatekey secretkey authkey masterkey sharedkey functionskey "
    "clientsecret accesstoken refreshtoken idtoken authtoken apitoken bearertoken sessiontoken sastoken securitytoken "
    "connectionstring connstr connectionstr subscriptionkey signingkey encryptionkey sharedaccesssignature "
    "amzsignature googsignature githubpat gitlabpat sessionid openaikey anthropickey geminikey"
).split()  # without separators, as in APIKEY and accesstoken, or followed by words, as in api_key_comfy_org
_ABOUT: Final = frozenset(
    "id ids name names count counts type types kind expires expiry expiration expire at in ttl age length len size "
    "url uri endpoint required needed env var variable set present valid limit limits usage used budget format header "
    "prefix file path location policy hint per index position enabled supported scopes scope".split()
)  # after the name of a secret: a property of it, not its value
_ITSELF: Final = frozenset("value values plain plaintext raw".split())  # after a name: no change of meaning
_NO_CREDENTIAL: Final = frozenset(
    "max min num n total prompt completion input output cached reasoning eos bos pad unk sep cls mask stop start end "
    "special image audio video text thoughts tool page next continuation sync per first last new decoder encoder "
    "accepted rejected prediction class".split()
)  # before "token": a token of text, or a position in a list

_HARMLESS_HEADERS: Final = frozenset(
    "accept accept-charset accept-encoding accept-language cache-control connection content-encoding content-language "
    "content-length content-type date expect host idempotency-key if-match if-modified-since if-none-match "
    "if-unmodified-since origin pragma range referer te traceparent tracestate transfer-encoding user-agent via "
    "x-request-id openai-beta openai-organization openai-project prefer".split()
)


@functools.lru_cache(4096)
def is_secret_name(name: str) -> bool:
    """Return whether the name of a member, header, variable or parameter marks a secret.

    ``client_secret``, ``aws_session_token``, ``AccountKey``, ``x-functions-key``, ``APIKEY`` and ``password2`` are;
    ``max_tokens``, ``token_count``, ``tokenizer``, ``api_key_id`` and ``secret_name`` are not.
    """
    if not _NAME.fullmatch(name) and (name.isascii() or not _NAME.fullmatch(_latin(name))):
        return False
    words = [word.lower() for word in _WORD.findall(name if name.isascii() else _latin(name))]
    while words and (words[-1].isdigit() or (words[-1] in _ITSELF and len(words) > 1)):
        words.pop()
    if not words or words[-1] in _ABOUT:
        return False
    words = [word[:-1] if word.endswith("s") and word[:-1] in _PLURALS else word for word in words]
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if last == "token":
        return before not in _NO_CREDENTIAL
    if last in _LAST or not _ANYWHERE.isdisjoint(words):
        return True
    if (last == "key" and before in _KEYS) or (last == "pass" and before in _OF_LOGINS):
        return True
    together = "".join(words)
    if together.endswith("tokens"):
        return any(together.endswith(f"{phrase}s") for phrase in _PHRASES)
    if any(phrase in together for phrase in _PHRASES) or together.endswith(("password", "passwd")):
        return True
    # joined with its purpose, as in xtoken and appsecret
    return last.endswith("secret") or (last.endswith("token") and last[:-5] not in _NO_CREDENTIAL)


def _latin(name: str) -> str:
    """Normalise full-width, styled, foreign, accented and invisible characters to the Latin letters they resemble."""
    plain = unicodedata.normalize("NFKD", name[:400])
    seen = "".join(c for c in plain if unicodedata.category(c) not in ("Cf", "Mn"))
    return seen.translate(_LIKE_LATIN)


_LIKE_LATIN: Final = str.maketrans(
    "авеиіјкӏмнорԛѕтѵуԝхһԁɡΑΒΕΖΗΙΚΜΝΟΡΤΥΧοαινρυικτАВЕЅІЈКМНОРСТХУсߋօοɑıℓ",
    "abeuijklmhopqstvywxhdgABEZHIKMNOPTYXoaivpuiktABESIJKMHOPCTXYcooolal"[:67],
)
_PLURALS: Final = _ANYWHERE | (_LAST - {"token"}) | {"key"}


def is_secret_variable(name: str) -> bool:
    """Return whether the name of an environment variable marks a secret. Every ``..._KEY`` does."""
    words = name.upper().split("_")
    return is_secret_name(name.lower()) or any(
        word.endswith(("KEY", "KEYS", "TOKEN", "SECRET", "PASS")) for word in words
    )


def is_harmless_header(name: str) -> bool:
    """Return whether the value of a header may be shown. All other headers may contain an operator's secret."""
    return name.strip().lower() in _HARMLESS_HEADERS


def is_headers_name(name: str) -> bool:
    """Return whether a name denotes a table of headers (``headers``, ``extra_headers``, ``httpHeaders``)."""
    return name[-8:].lower().endswith("headers")


def named_secret(pair: Any) -> bool:
    """Return whether a list or an object is a pair of name and value, and the name marks a secret.

    ``["Authorization", "..."]``, ``{"name": "token", "value": "..."}``, ``{"key": "api_key", "value": "..."}``.
    """
    match pair:
        case [str(name), str()] | (str(name), str()):
            return is_secret_name(name)
        case {"value": _, "name": str(name)} | {"value": _, "key": str(name)} | {"value": _, "header": str(name)}:
            return is_secret_name(name)
        case _:
            return False
