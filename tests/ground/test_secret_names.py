"""Which names are those of secrets: one list for logs, kept requests, the mapping and the command line."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import structlog

from emp_trio.cli.output import shown
from emp_trio.ops.logs import _cleaner
from emp_trio.secrets import Redactor
from emp_trio.secrets.names import is_secret_name
from emp_trio.services.redaction import redacted

SECRET = """
token access_token refresh_token id_token secret client_secret aws_secret_access_key aws_session_token account_key
sas_token connection_string password passwd private_key credentials authorization proxy-authorization
Proxy-Authorization x-functions-key api-key api_key apiKey APIKEY ApiKey X-Api-Key x-goog-api-key accountKey AccountKey
storageKey StorageAccountKey connectionString AZURE_STORAGE_CONNECTION_STRING clientSecret accessToken refreshToken
idToken accesstoken Ocp-Apim-Subscription-Key auth_token_comfy_org api_key_comfy_org password2 userPassword
passwordConfirmation cookie Set-Cookie cookies secrets passwords api_keys access_tokens bearer jwt auth http_auth
hf_token civitaiToken webhook_secret signing_secret db_pass smtp_password x-amz-security-token secretAccessKey
secret_key secretKey sharedAccessSignature xi-api-key AWSSecretAccessKey dbpassword X-Auth-Token private-key
session_token botToken OAuthToken auth_key pwd masterKey lease_token
openai_key geminiKey HF_KEY consumer_key xtoken mytoken appsecret hftoken secret_value tokenValue api_key_2
X-Amz-Signature totp
""".split()
LOOKS_LIKE = [  # other alphabets, wide letters, accents, and what can't be seen
    "p\u0430ssword",
    "t\u043eken",
    "\u0430pi_k\u0435y",
    "\uff21\uff30\uff29\uff3f\uff2b\uff25\uff39",
    "\uff53ecret",
    "pass\u00adword",
    "api\u200b_key",
    "cl\u00edent_secr\u00e9t",
]
HARMLESS = """
max_tokens token_count prompt_tokens tokenizer total_tokens maxTokens tokens max_token eos_token bos_token eosTokenId
token_ids token_type token_limit tokens_per_minute completion_tokens max_completion_tokens maxOutputTokens cached_tokens
reasoning_tokens thoughtsTokenCount totalTokenCount promptTokenCount nextPageToken page_token key keys primary_key
foreign_key prompt_cache_key idempotency_key public_key api_key_id aws_access_key_id secret_name password_required
author authors authority passes hr_second_pass_steps second_pass pass_through compass bypass monkey keyboard seed
token_endpoint token_url value raw_value plain_text key_value tokenised eostoken größe
expires_in session_id image_token secretary tokenize num_tokens keyframe keywords mask user
""".split()


@pytest.mark.parametrize("name", SECRET)
def test_a_name_of_a_secret_hides_it_everywhere(name: str) -> None:
    value = "vAlue-0815-plain"
    given: dict[str, Any] = {"outer": [{name: value}], "list": {name: [value, {"x": value}]}}
    assert is_secret_name(name)
    event = _cleaner(Redactor())(None, "info", {"event": "x", name: value, "more": given})
    for copy in (redacted(given), shown(given), Redactor().data(given), event):
        assert value not in json.dumps(copy)
    assert value not in json.dumps(redacted([[name, value], {"name": name, "value": value}]))
    assert value not in redacted(f"it said {json.dumps({name: value})}, and {name}={value}&more=1")


@pytest.mark.parametrize("name", LOOKS_LIKE)
def test_a_name_is_read_as_it_looks(name: str) -> None:
    given = {"outer": [{name: "vAlue-0815-plain"}], "pair": [name, "vAlue-0815-plain"]}
    for copy in (redacted(given), shown(given), Redactor().data(given)):
        assert "0815" not in json.dumps(copy)


def test_a_private_key_is_masked_by_its_look() -> None:
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA7/bc+d\nefgh12==\n-----END RSA PRIVATE KEY-----\n"
    for text in (f"can't read {key}", f"can't read {json.dumps(key)}", f"can't read {key[:60]}"):
        assert "MII" not in redacted(text)
        assert "efgh" not in redacted(text)
    assert redacted("-----BEGIN CERTIFICATE-----\nMIIE") == "-----BEGIN CERTIFICATE-----\nMIIE"


@pytest.mark.parametrize("name", HARMLESS)
def test_a_name_that_only_sounds_like_it_hides_nothing(name: str) -> None:
    given = {"outer": [{name: "plain"}], name: 12}
    assert not is_secret_name(name)
    assert redacted(given) == shown(given) == Redactor().data(given) == given
    assert redacted(f"{name}=plain") == f"{name}=plain"


def test_of_headers_only_those_are_shown_of_which_everybody_knows_that_they_are_harmless() -> None:
    headers = {"Content-Type": "a/b", "X-Our-Door": "opens", "Authorization": "Custom abc", "Accept": "*/*"}
    kept = {"Content-Type": "a/b", "X-Our-Door": "***", "Authorization": "***", "Accept": "*/*"}
    for name in ("headers", "extra_headers", "httpHeaders"):
        assert redacted({name: headers}) == Redactor().data({name: headers}) == {name: kept}


def test_nothing_is_lost_where_names_fall_together() -> None:
    made = redacted({"sk-aaaaaaaaaaaaaaaa": 1, "sk-bbbbbbbbbbbbbbbb": 2, "sk-***": 3})
    assert sorted(made.values()) == [1, 2, 3]


def test_the_log_has_the_same_list() -> None:
    out = io.StringIO()
    logger = structlog.wrap_logger(
        structlog.PrintLogger(out), processors=[_cleaner(Redactor()), structlog.processors.JSONRenderer()]
    )
    logger.info("asked", client_secret="abc-def-ghi", max_tokens=5, nested={"sas_token": "abc-def-ghi"})
    assert "abc-def-ghi" not in out.getvalue()
    assert '"max_tokens": 5' in out.getvalue()
