"""What is S3's or Google's own: the meaning of their answers, clocks, addresses, credentials."""

from __future__ import annotations

import hashlib
import importlib.util
import time
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio

from emp_trio.assets.cdn import Expected, judge
from emp_trio.assets.config import StorageSettings, storage_settings
from emp_trio.assets.destination import destination
from emp_trio.assets.storage import open_asset_storage
from emp_trio.assets.stores import provider
from emp_trio.assets.stores.provider import StoreTimeouts
from emp_trio.assets.stores.providers import gcs, s3
from emp_trio.assets.stores.providers.gcs.account import GcsBucket
from emp_trio.assets.stores.providers.s3.account import S3Account, S3Bucket
from emp_trio.assets.stores.providers.s3.store import PART
from emp_trio.errors import AssetError, ConfigError
from emp_trio.jobs import JobContext
from emp_trio.retry import RetryPolicy
from emp_trio.secrets import Secret
from emp_trio.testing.attempt import FakeAttempt
from emp_trio.testing.faulty_server import Answer, open_faulty_server, raw, reply
from emp_trio.testing.gcs import Refusal, open_gcs
from tests.assets.support import a_job

KEY = "an aws secret"


def at(provider: str, url: str) -> StorageSettings:
    """A worker with storage at ``url``, that tries once."""
    env = {
        "azure": {
            "AZURE_STORAGE_ACCOUNT": "ours",
            "AZURE_STORAGE_KEY": "a2V5",
            "AZURE_STORAGE_ENDPOINT": url,
        },
        "s3": {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": KEY, "S3_ENDPOINT_URL": url},
        "gcs": {"STORAGE_EMULATOR_HOST": url},
    }[provider] | {"CLOUD_STORAGE_PROVIDER": provider, "CLOUD_STORAGE_CONTAINER": "any"}
    return msgspec.structs.replace(storage_settings(env), retry=RetryPolicy(retries=0))


def s3_error(status: int, code: str, **headers: str) -> Answer:
    return reply(status, f"<Error><Code>{code}</Code></Error>", content_type="application/xml", headers=headers)


def gcs_error(status: int, reason: str) -> Answer:
    return reply(status, json={"error": {"code": status, "message": "", "errors": [{"reason": reason}]}})


async def failure(provider: str, *answers: Answer) -> AssetError:
    async with open_faulty_server(*answers) as faulty, open_asset_storage(at(provider, faulty.url)) as saver:
        with pytest.raises(AssetError, match="is paid for") as caught:
            await saver.save(b"x", a_job(), FakeAttempt(60))
        assert len(faulty.requests) == len(answers)  # the library repeats nothing
    assert KEY not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (403, "SignatureDoesNotMatch", ("auth_error", "invalid_api_key", False)),
        (403, "AccessDenied", ("auth_error", "insufficient_permissions", False)),
        (400, "ExpiredToken", ("auth_error", "expired_token", True)),
        (403, "RequestTimeTooSkewed", ("system_error", "config_error", True)),
        (404, "NoSuchBucket", ("system_error", "config_error", False)),
        (400, "AuthorizationHeaderMalformed", ("system_error", "config_error", False)),
        (412, "PreconditionFailed", ("service_error", "degraded_performance", True)),
        (409, "ConditionalRequestConflict", ("service_error", "degraded_performance", True)),
        (503, "SlowDown", ("rate_limit", "requests_per_minute", True)),
        (500, "InternalError", ("service_error", "service_down", True)),
        (507, "XMinioStorageFull", ("resource_limit", "disk_space_full", True)),
        (403, "QuotaExceeded", ("resource_limit", "disk_space_full", True)),
        (501, "NotImplemented", ("system_error", "config_error", False)),
        (503, "Unknown", ("service_error", "service_unavailable", True)),
        (418, "Unknown", ("validation_error", "invalid_payload", False)),
    ],
)
async def test_answers_of_s3(status: int, code: str, expected: tuple[str, str, bool]) -> None:
    missing = s3_error(404, "NoSuchKey")
    for answers in ((s3_error(status, code),), (missing, s3_error(status, code))):
        error = await failure("s3", *answers)
        assert (error.type, error.reason, error.retry) == expected
        assert f"HTTP {status}, {code}" in error.message


NOTES = {"x-amz-meta-sha256": hashlib.sha256(b"x").hexdigest(), "x-amz-meta-job_id": "job-1"}
HEAD = reply(200, length=1, headers={**NOTES, "etag": '"e"'})
WHOLE = b"x" * 100_000


@pytest.mark.parametrize(
    "answers",
    [
        [reply(200, b"x", headers={**NOTES, "etag": '"e"'})],  # a store that heeds no ranges
        [reply(206, b"x", headers={**NOTES, "etag": '"e"'}), HEAD],
        [reply(206, b"x", headers={**NOTES, "content-range": "bytes 0-0/*"}), HEAD],
        [reply(206, b"x", headers={**NOTES, "content-range": "nonsense"}), HEAD],
        [reply(206, b"x", headers={**NOTES, "content-range": "bytes 0-0/1"})],  # no ETag, and none is needed
        [s3_error(416, "InvalidRange"), HEAD],
    ],
)
async def test_what_a_store_of_s3s_kind_may_leave_out(answers: list[Answer]) -> None:
    """The very content is there already: nothing has to be written."""
    async with open_faulty_server(*answers) as faulty, open_asset_storage(at("s3", faulty.url)) as saver:
        saved = await saver.save(b"x", a_job(), FakeAttempt(60))
        assert [seen.method for seen in faulty.requests] == ["GET", "HEAD"][: len(answers)]
    assert saved.size == 1


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([reply(206, b"x"), raw(b"HTTP/1.1 200 X\r\nconnection: close\r\n\r\n")], "no size"),
        ([reply(200, b"yy", headers={"x-amz-meta-job_id": "job-1"})], "no ETag"),
    ],
)
async def test_what_a_store_of_s3s_kind_may_not_leave_out(answers: list[Answer], words: str) -> None:
    error = await failure("s3", *answers)
    assert (error.type, error.reason, error.retry) == ("response_error", "missing_expected_data", True)
    assert words in error.message


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([reply(200, "<R></R>", content_type="application/xml")], "no UploadId"),
        (
            [
                reply(200, "<R><UploadId>u1</UploadId></R>", content_type="application/xml"),
                reply(200),
                reply(204),
            ],
            "no ETag",
        ),
    ],
)
async def test_an_upload_in_parts_whose_answers_lack_something(answers: list[Answer], words: str) -> None:
    async with (
        open_faulty_server(s3_error(404, "NoSuchKey"), *answers) as faulty,
        open_asset_storage(at("s3", faulty.url)) as saver,
    ):
        with pytest.raises(AssetError, match=words) as caught:
            await saver.save(bytes(PART + 1), a_job(), FakeAttempt(60))
    assert caught.value.type == "response_error"


async def test_a_store_that_heeds_no_ranges_is_not_read_to_its_end() -> None:
    """The object may be a film."""
    whole = reply(200, WHOLE, headers={"etag": '"e"', "x-amz-meta-job_id": "someone"}, length=10**12)
    async with open_faulty_server(whole) as faulty, open_asset_storage(at("s3", faulty.url)) as saver:
        with trio.fail_after(60), pytest.raises(AssetError, match="another job"):
            await saver.save(b"x", a_job(), FakeAttempt(60))


@pytest.mark.parametrize("about", [{}, {"size": "1"}, {"generation": "5"}, {"size": None, "generation": "5"}])
async def test_an_answer_of_google_that_lacks_something(about: dict[str, Any]) -> None:
    error = await failure("gcs", reply(200, json=about))
    assert (error.type, error.reason) == ("response_error", "missing_expected_data")


async def test_an_answer_of_azure_that_lacks_something() -> None:
    error = await failure("azure", reply(200, length=2, headers={"x-ms-meta-job_id": "job-1"}))
    assert (error.type, error.reason) == ("response_error", "missing_expected_data")
    assert "no ETag" in error.message


async def test_parts_that_are_still_on_their_way_may_want_a_second_abort() -> None:
    """Parts that nobody forgets are stored, and paid for, without end."""
    answers = (
        s3_error(404, "NoSuchKey"),
        reply(200, "<R><UploadId>u1</UploadId></R>", content_type="application/xml"),
        s3_error(403, "AccessDenied"),  # the first part
        s3_error(500, "InternalError"),
        reply(204),
    )
    async with open_faulty_server(*answers) as faulty, open_asset_storage(at("s3", faulty.url)) as saver:
        with pytest.raises(AssetError, match="AccessDenied"):
            await saver.save(bytes(PART + 1), a_job(), FakeAttempt(60))
        assert [(seen.method, "uploadId=u1" in seen.target) for seen in faulty.requests[2:]] == [
            ("PUT", True),
            ("DELETE", True),
            ("DELETE", True),
        ]


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        (403, "forbidden", ("auth_error", "insufficient_permissions", False)),
        (403, "accountDisabled", ("auth_error", "account_suspended", False)),
        (412, "conditionNotMet", ("service_error", "degraded_performance", True)),
        (429, "rateLimitExceeded", ("rate_limit", "requests_per_minute", True)),
        (403, "quotaExceeded", ("resource_limit", "disk_space_full", True)),
        (403, "retentionPolicyNotMet", ("validation_error", "invalid_payload", False)),
        (500, "backendError", ("service_error", "service_down", True)),
        (503, "backendError", ("service_error", "service_unavailable", True)),
    ],
)
async def test_answers_of_google(status: int, reason: str, expected: tuple[str, str, bool]) -> None:
    for answers in ((gcs_error(status, reason),), (gcs_error(404, "notFound"), gcs_error(status, reason))):
        error = await failure("gcs", *answers)
        assert (error.type, error.reason, error.retry) == expected
        assert f"HTTP {status}, {reason}" in error.message


@pytest.mark.parametrize("provider", ["azure", "s3", "gcs"])
async def test_something_else_at_the_address(provider: str) -> None:
    error = await failure(provider, reply(302, headers={"location": "http://example.invalid/"}))
    assert error.retry
    assert error.paid


LATE = formatdate(time.time() + 3600, usegmt=True)


@pytest.mark.parametrize(
    ("provider", "answer", "words"),
    [
        (
            "azure",
            reply(403, headers={"x-ms-error-code": "AuthenticationFailed", "date": LATE}),
            "s behind the store's",
        ),
        ("s3", s3_error(403, "RequestTimeTooSkewed", date=LATE), "s behind the store's"),
        ("s3", s3_error(403, "AccessDenied", date=LATE), "s behind the store's"),
        ("s3", s3_error(403, "RequestTimeTooSkewed"), "too far from the store's"),
    ],
)
async def test_a_clock_that_is_wrong(provider: str, answer: Answer, words: str) -> None:
    error = await failure(provider, answer)
    assert (error.type, error.reason, error.retry) == ("system_error", "config_error", True)
    assert words in error.message
    assert "set the clock" in error.message


async def test_a_clock_that_is_wrong_gets_no_token_of_google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import google.auth._helpers

    now = google.auth._helpers.utcnow
    async with open_gcs(tmp_path) as gcs:
        gcs.create_bucket("assets")
        settings = storage_settings(gcs.environment("assets"))
        signed_at = now().timestamp() + 7200

        class Late:
            """The clock of the machine that signs; the service's own is right."""

            def __call__(self) -> Any:
                return now().fromtimestamp(signed_at, now().tzinfo)

        import google.oauth2.service_account

        helpers = SimpleNamespace(**vars(google.auth._helpers) | {"utcnow": Late()})
        monkeypatch.setattr(google.oauth2.service_account, "_helpers", helpers)
        monkeypatch.setattr("emp_trio.assets.stores.session.time", SimpleNamespace(time=lambda: signed_at))
        async with open_asset_storage(msgspec.structs.replace(settings, retry=RetryPolicy(retries=0))) as saver:
            with pytest.raises(AssetError, match=r"7[12]\d\d s ahead of the store's.* set the clock") as caught:
                await saver.save(b"x", a_job(), FakeAttempt(60))
    assert (caught.value.reason, caught.value.retry) == ("config_error", True)


async def test_a_token_that_google_does_not_take(tmp_path: Path) -> None:
    def refuse(request: Any) -> None:
        raise Refusal(401, "authError", "Invalid Credentials")

    async with open_gcs(tmp_path) as gcs:
        gcs.create_bucket("assets")
        gcs.fault = refuse
        async with open_asset_storage(storage_settings(gcs.environment("assets"))) as saver:
            with pytest.raises(AssetError, match=r"401, authError.*GOOGLE_APPLICATION_CREDENTIALS.* is paid") as caught:
                await saver.save(b"x", a_job(), FakeAttempt(60))
    assert (caught.value.type, caught.value.retry) == ("auth_error", False)


@pytest.mark.parametrize("content", ["", "[]", '{"type": "service_account"}', None])
async def test_credentials_that_are_none(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "credentials.json"
    if content is not None:
        path.write_text(content)
    env = {
        "CLOUD_STORAGE_PROVIDER": "google",
        "CLOUD_STORAGE_CONTAINER": "any",
        "GOOGLE_APPLICATION_CREDENTIALS": str(path),
    }
    async with open_asset_storage(storage_settings(env)) as saver:
        with pytest.raises(AssetError, match=r"GOOGLE_APPLICATION_CREDENTIALS.* is paid for") as caught:
            await saver.save(b"x", a_job(), FakeAttempt(60))
    assert (caught.value.type, caught.value.retry) == ("auth_error", False)


@pytest.mark.parametrize(
    ("account", "bucket", "url"),
    [
        (S3Account(region="eu-central-1"), "b", "https://b.s3.eu-central-1.amazonaws.com/a%20b/c"),
        (S3Account(region="eu-central-1"), "b.c", "https://s3.eu-central-1.amazonaws.com/b.c/a%20b/c"),
        (S3Account(endpoint="http://minio:9000"), "b", "http://minio:9000/b/a%20b/c"),
    ],
)
def test_addresses_of_s3(account: S3Account, bucket: str, url: str) -> None:
    store = s3.PROVIDER.open(S3Bucket(account=account, bucket=bucket), StoreTimeouts(connect=1, read=1, abort=1))
    assert store.url("a b/c") == url
    store.close()


async def test_a_machine_without_aws_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    env = {"CLOUD_STORAGE_PROVIDER": "aws", "CLOUD_STORAGE_CONTAINER": "any-bucket"}
    async with open_asset_storage(storage_settings(env)) as saver:
        with pytest.raises(AssetError, match=r"no AWS credentials .*AWS_ACCESS_KEY_ID.* is paid for"):
            await saver.save(b"x", a_job(), FakeAttempt(30))


def test_a_missing_library_is_found_before_anything_is_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    provider._installed.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'emp-trio\[s3\]'"):
        s3.PROVIDER.requires(S3Bucket(account=S3Account(), bucket="b"), JobContext())
    with pytest.raises(ConfigError, match=r"pip install 'emp-trio\[gcs\]'"):
        gcs.PROVIDER.requires(GcsBucket(credentials=None, endpoint=None, bucket="b"), JobContext())
    provider._installed.cache_clear()


AWS = {
    "CLOUD_STORAGE_PROVIDER": "s3",
    "CLOUD_STORAGE_CONTAINER": "images",
    "CLOUD_CDN_URL": "cdn.example.com",
    "AWS_ACCESS_KEY_ID": "AKIAOURS",
    "AWS_SECRET_ACCESS_KEY": KEY,
    "AWS_SESSION_TOKEN": "a token",
    "AWS_REGION": "eu-central-1",
    "S3_ENDPOINT_URL": "https://minio.internal/",
}


def test_the_account_of_s3_comes_from_the_environment() -> None:
    found = destination(JobContext(), storage_settings(AWS))
    assert found.cdn_url == "https://cdn.example.com"
    account = found.location.account
    assert (account.key_id, account.region, account.endpoint) == ("AKIAOURS", "eu-central-1", "https://minio.internal")
    assert account.secret is not None
    assert account.secret.reveal() == KEY
    assert KEY not in repr(found) + repr(storage_settings(AWS))
    assert {secret.reveal() for secret in storage_settings(AWS).secrets} == {KEY, "a token"}


def test_a_job_with_its_own_account_of_s3_gets_nothing_of_ours() -> None:
    ctx = JobContext(account_name="AKIATHEIRS", account_key=Secret("theirs"), bucket="films")
    found = destination(ctx, storage_settings(AWS))
    assert found.cdn_url is None
    assert found.location.account == S3Account(key_id="AKIATHEIRS", secret=Secret("theirs"))
    assert found.location.bucket == "films"


def test_google_from_the_environment() -> None:
    env = {"CLOUD_STORAGE_CONTAINER": "images", "GOOGLE_APPLICATION_CREDENTIALS": "/secrets/key.json"}
    found = destination(JobContext(provider="google"), storage_settings(env))
    assert found.location == GcsBucket(credentials=Path("/secrets/key.json"), endpoint=None, bucket="images")
    emulated = storage_settings(env | {"CLOUD_STORAGE_PROVIDER": "gcs", "STORAGE_EMULATOR_HOST": "127.0.0.1:9"})
    assert emulated.accounts["gcs"].endpoint == "http://127.0.0.1:9"


def test_aws_variables_of_another_purpose_do_no_harm() -> None:
    azure = {"CLOUD_STORAGE_PROVIDER": "local", "LOCAL_STORAGE_PATH": "/x"}
    assert "s3" not in storage_settings(azure | {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_REGION": "%%"}).accounts
    with pytest.raises(ConfigError, match="AWS_SECRET_ACCESS_KEY"):
        storage_settings({"CLOUD_STORAGE_PROVIDER": "aws", "AWS_ACCESS_KEY_ID": "AKIA"})


@pytest.mark.parametrize("header", ["x-ms-meta-sha256", "x-amz-meta-sha256", "x-goog-meta-sha256"])
def test_a_cdn_passes_the_digest_on_from_any_store(header: str) -> None:
    expected = Expected(size=3, sha256="abc")
    assert judge("HEAD", 200, {header: "abc"}, expected) == "right"
    assert judge("HEAD", 200, {header: "of an earlier attempt"}, expected) == "wrong"
