"""S3 on this machine for tests: a server in a process of its own (and `FaultyProxy` to put before it)."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import boto3
from botocore.config import Config

from tests.support.s3_proxy import ANSWER_TIMEOUT_S, FaultyProxy

__all__ = ["PAGE_KEYS", "SECRET", "FaultyProxy", "S3Server", "aws_environment"]

KEY_ID = "AKIATESTTESTTESTTEST"
SECRET = "a-secret-that-must-never-be-written-anywhere"
REGION = "us-east-1"
PAGE_KEYS = 50  # of a listing; AWS gives 1000


def aws_environment(endpoint: str, *, key_id: str = KEY_ID, secret: str = SECRET) -> dict[str, str]:
    """The variables that make an endpoint everybody's S3; for child processes beside `os.environ`."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": key_id,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class S3Server:
    """moto's S3 over HTTP, in a process of its own; everything is in memory and gone at the end.

    Credentials are not looked at unless `check_credentials` is called.
    """

    def __init__(self) -> None:
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        environment = {**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": str(PAGE_KEYS)}
        self._process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._clients: list[Any] = []

    def __enter__(self) -> Self:
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while True:
            try:
                urllib.request.urlopen(f"{self.endpoint}/moto-api/", timeout=10).close()
            except OSError:
                assert self._process.poll() is None, "the S3 server ended"
                assert time.monotonic() < deadline, "the S3 server does not answer"
                time.sleep(0.05)
            else:
                return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()
        self._process.kill()
        self._process.wait()

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """The AWS variables for this server, or for a proxy before it."""
        return aws_environment(endpoint or self.endpoint)

    def client(self, service: str = "s3", **credentials: str) -> Any:
        """A boto3 client of this server, whatever the environment says."""
        given = {"aws_access_key_id": KEY_ID, "aws_secret_access_key": SECRET, **credentials}
        client = boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            config=Config(retries={"total_max_attempts": 2}),
            **given,
        )
        self._clients.append(client)
        return client

    def make_bucket(self, name: str) -> str:
        """Make a bucket and return its URL."""
        self.client().create_bucket(Bucket=name)
        return f"s3://{name}"

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Every object of a bucket, as it lies there."""
        client = self.client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    def upload(self, bucket: str, files: Mapping[str, bytes]) -> None:
        client = self.client()
        for key, content in files.items():
            client.put_object(Bucket=bucket, Key=key, Body=content)

    def make_user(self, name: str, *actions: str) -> dict[str, str]:
        """A user with the right to these actions on every bucket; its AWS variables."""
        iam = self.client("iam")
        statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName=name, PolicyDocument=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return aws_environment(self.endpoint, key_id=key["AccessKeyId"], secret=key["SecretAccessKey"])

    def check_credentials(self, *, after: int = 0) -> None:
        """From now on (or after so many requests) refuse unknown keys, wrong secrets and what no policy allows."""
        request = urllib.request.Request(
            f"{self.endpoint}/moto-api/reset-auth", str(after).encode(), {"Content-Type": "text/plain"}
        )
        urllib.request.urlopen(request).close()

    @contextmanager
    def checked_credentials(self) -> Iterator[None]:
        """Credentials are checked inside."""
        self.check_credentials()
        try:
            yield
        finally:
            self.check_credentials(after=10**12)
