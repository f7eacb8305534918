"""A real S3 protocol for tests: moto's server, in threads of this process, on a free port, with its rules of access on.

::

    with running_s3() as s3:
        s3.create_bucket("assets")
        settings = storage_settings(s3.environment("assets"))

It checks signatures and rights as AWS does; unlike AWS it looks neither at clocks nor at the condition If-Match of an
upload in parts.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from emp_trio.secrets import Secret

_MAY_ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


class S3(msgspec.Struct, frozen=True, kw_only=True):
    """A running S3 with one user who may do everything; ``client`` is boto3's, to look behind the scenes."""

    endpoint: str
    key_id: str
    secret: Secret
    client: Any

    def create_bucket(self, name: str) -> None:
        """Make a bucket."""
        self.client.create_bucket(Bucket=name)

    def environment(self, bucket: str) -> dict[str, str]:
        """The variables that make a worker use this bucket."""
        return {
            "CLOUD_STORAGE_PROVIDER": "s3",
            "CLOUD_STORAGE_CONTAINER": bucket,
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret.reveal(),
            "S3_ENDPOINT_URL": self.endpoint,
        }


@contextmanager
def running_s3() -> Iterator[S3]:
    """Run an S3 for as long as the block runs; it keeps everything in memory. One at a time per process."""
    import requests
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    try:
        iam = _client("iam", endpoint, "anybody", "as yet")
        iam.create_user(UserName="worker")
        iam.put_user_policy(UserName="worker", PolicyName="all", PolicyDocument=json.dumps(_MAY_ALL))
        key = iam.create_access_key(UserName="worker")["AccessKey"]
        requests.post(f"{endpoint}/moto-api/reset-auth", data=b"0", timeout=10).raise_for_status()
        key_id, secret = key["AccessKeyId"], key["SecretAccessKey"]
        client = _client("s3", endpoint, key_id, secret)
        yield S3(endpoint=endpoint, key_id=key_id, secret=Secret(secret), client=client)
    finally:
        requests.post(f"{endpoint}/moto-api/reset-auth", data=b"inf", timeout=10)
        server.stop()


def _client(service: str, endpoint: str, key_id: str, secret: str) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        service,
        endpoint_url=endpoint,
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )
