"""
A client for S3, and what a server's refusals mean for the user.

Credentials, region, endpoint and certificates are found by botocore, the library under the AWS
command line: environment, profiles, single sign-on, instance roles, and `~/.boto`. It is the only
client of those tried that can go on with an unfinished upload. Its import takes 0.15 s, so only
runs that name a bucket pay for it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import botocore.exceptions
import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError as Refusal
from botocore.parsers import ResponseParserError

from buttersink.errors import LocationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from buttersink.errors import Error

Client = Any
"""A botocore client, whose methods are made at run time from the API's description."""

_CONNECT, _READ = 10, 60  # seconds without an answer
_ATTEMPTS = 5  # with pauses of up to 1, 2, 4, 8 seconds: throttling, 5xx, broken connections

_REFUSALS = {  # codes of "Error Responses" in the S3 API reference: what is wrong, what to do
    "NoSuchBucket": ("there is no such bucket", "Make it, or correct the name or the endpoint."),
    "AccessDenied": (
        "these credentials do not allow it",
        "The README has the bucket policy that ButterSink needs.",
    ),
    "InvalidAccessKeyId": (
        "the server does not know this access key",
        "Check AWS_ACCESS_KEY_ID, AWS_PROFILE or ~/.aws/credentials, and the endpoint.",
    ),
    "SignatureDoesNotMatch": (
        "the secret key is wrong",
        "Check AWS_SECRET_ACCESS_KEY, AWS_PROFILE or ~/.aws/credentials.",
    ),
    "ExpiredToken": ("the credentials have expired", "Get new ones (aws sso login) and run again."),
    "RequestTimeTooSkewed": ("this machine's clock is wrong", "Set it and run again."),
    "AuthorizationHeaderMalformed": ("the bucket is in another region", "Set AWS_REGION."),
    "PermanentRedirect": ("the bucket is in another region", "Set AWS_REGION."),
    "IllegalLocationConstraintException": ("the bucket is in another region", "Set AWS_REGION."),
    "InvalidObjectState": (
        "the object is archived",
        "Restore it first: aws s3api restore-object, then wait until it is there.",
    ),
    "InvalidPart": (
        "a part is not what was sent: a request of an earlier run has arrived late",
        "Run again: it goes on.",
    ),
    "InvalidBucketName": ("that is no name of a bucket", "Correct it."),
    "InvalidStorageClass": ("the server has no such storage class", "Change --storage-class."),
    "QuotaExceeded": ("the quota is used up", "Free space there and run again."),
}
_BY_STATUS = {"403": "AccessDenied", "400": "InvalidAccessKeyId", "301": "PermanentRedirect"}
"""What the answers to HEAD mean, which have no code."""

NO_S3 = ("the answer is none of S3's", "Check AWS_ENDPOINT_URL.")
"""What is wrong where something else answers, and what to do."""


def connect(bucket: str, threads: int) -> Client:
    """
    Return a client that so many threads can use at once; nothing is sent yet.

    `LocationError` if there is no region, profile or endpoint to be made sense of.
    """
    config = Config(
        connect_timeout=_CONNECT,
        read_timeout=_READ,
        max_pool_connections=threads,
        # "standard" pauses for milliseconds where the network is away, and after some 35 times in
        # the life of a client not at all.
        retries={"mode": "legacy", "total_max_attempts": _ATTEMPTS},
        # Checksums are given one by one; servers that do not know them are many.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    with translating(LocationError, "cannot open the bucket", bucket):
        session = botocore.session.get_session()
        region = session.get_config_variable("region") or "us-east-1"
        return session.create_client("s3", region_name=region, config=config)


@contextmanager
def translating(kind: type[Error], what: str, where: bytes | str | None) -> Iterator[None]:
    """Turn whatever the client raises into one error of this kind."""
    try:
        yield
    except Refusal as error:
        why, hint = _refusal(error)
        raise kind(what, where=where, why=why, hint=hint) from error
    except botocore.exceptions.BotoCoreError as error:
        why, hint = _failure(error)
        raise kind(what, where=where, why=why, hint=hint) from error
    except ResponseParserError as error:
        why, hint = NO_S3
        raise kind(what, where=where, why=why, hint=hint) from error
    except OSError as error:
        raise kind(what, where=where, why=error.strerror or str(error)) from error
    except ValueError as error:  # an endpoint that is no URL
        raise kind(what, where=where, why=str(error), hint="Check AWS_ENDPOINT_URL.") from error


def code_of(error: Refusal) -> str:
    """Return the code of a server's refusal."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _refusal(error: Refusal) -> tuple[str, str]:
    code = code_of(error)
    if error.operation_name.startswith("Head"):
        code = _BY_STATUS.get(code, code)
    if code in _REFUSALS:
        return _REFUSALS[code]
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if (code.isdigit() or not code) and status < 500:  # it came without an error document
        return f"{NO_S3[0]}, and has the status {status}", NO_S3[1]
    said = str(error.response["Error"].get("Message") or "")
    # To the client an answer that is no XML has the status 500, too.
    hint = "If it does so again, check AWS_ENDPOINT_URL." if code.isdigit() else ""
    return "the server says " + ": ".join(part for part in (code, _one_line(said)) if part), hint


def _one_line(text: str) -> str:
    """Return what a library or server says as it stands before a full stop."""
    return " ".join(text.split()).rstrip(".")


def _failure(error: botocore.exceptions.BotoCoreError) -> tuple[str, str]:
    exceptions = botocore.exceptions
    said = _one_line(str(error))
    if isinstance(error, (exceptions.NoCredentialsError, exceptions.PartialCredentialsError)):
        return (
            "there are no credentials",
            "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (with sudo -E).",
        )
    if isinstance(error, exceptions.ProfileNotFound):
        return said, "Check AWS_PROFILE and ~/.aws/config."
    if isinstance(error, exceptions.SSLError):
        return "the server's certificate is not trusted", "Set AWS_CA_BUNDLE to a file with its CA."
    if isinstance(error, (exceptions.ConnectionError, exceptions.HTTPClientError)):
        return said, "Check the network and AWS_ENDPOINT_URL."
    return said, ""
