"""What users get wrong about S3: one line each that says what to do, soon, and no traceback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from tests.support.command import buttersink, run_raw
from tests.support.httpfront import Answering
from tests.support.serving import HOST, free_port, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import StartedServer
    from tests.support.s3servers import Bucket, Server

SECONDS = 30  # the client tries five times, with pauses that double


@pytest.fixture(scope="module")
def server(s3_servers: StartedServer) -> Server:
    return s3_servers("rclone")  # proves signatures, and needs no root


@pytest.fixture(scope="module")
def bucket(server: Server) -> Iterator[Bucket]:
    bucket = server.bucket("errors")
    yield bucket
    bucket.remove()


def refused(location: str, environment: dict[str, str], *, source: str = "") -> str:
    """Return the one line that the command says, without its beginning."""
    started = time.monotonic()
    done = run_raw(
        [sys.executable, "-m", "buttersink", *([source] if source else []), location],
        environment=environment,
    )
    said = done.stderr.decode()
    assert done.returncode == 1, said
    assert done.stdout == b""
    assert time.monotonic() - started < SECONDS
    assert said.count("\n") == 1, said
    assert said.startswith("buttersink: error: "), said
    assert "internal error" not in said
    return said


class TestCredentials:
    def test_a_wrong_secret(self, server: Server, bucket: Bucket) -> None:
        said = refused(f"s3://{bucket.name}/", replace(server, secret_key="wrong").environment())
        assert "AWS_SECRET_ACCESS_KEY" in said

    def test_an_unknown_key(self, server: Server, bucket: Bucket) -> None:
        said = refused(f"s3://{bucket.name}/", replace(server, access_key="NOBODY").environment())
        assert "AWS_ACCESS_KEY_ID" in said

    def test_none(self, server: Server, bucket: Bucket, tmp_path: Path) -> None:
        """Where it also asks the machine it runs on, which may be one of Amazon's."""
        environment = server.environment() | {"HOME": os.fspath(tmp_path)}
        environment |= dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "")
        environment["AWS_EC2_METADATA_DISABLED"] = ""
        said = refused(f"s3://{bucket.name}/", environment)
        assert "AWS_PROFILE" in said

    def test_half_of_them(self, server: Server, bucket: Bucket, tmp_path: Path) -> None:
        environment = server.environment() | {"HOME": os.fspath(tmp_path)}
        environment["AWS_SECRET_ACCESS_KEY"] = ""
        assert "AWS_SECRET_ACCESS_KEY" in refused(f"s3://{bucket.name}/", environment)

    def test_no_such_profile(self, server: Server, bucket: Bucket) -> None:
        environment = server.environment() | {"AWS_PROFILE": "nobody"}
        assert "AWS_PROFILE" in refused(f"s3://{bucket.name}/", environment)

    def test_of_boto(self, server: Server, bucket: Bucket, tmp_path: Path) -> None:
        text = (
            f"[Credentials]\naws_access_key_id = {server.access_key}\n"
            f"aws_secret_access_key = {server.secret_key}\n"
        )
        (tmp_path / ".boto").write_text(text)
        environment = server.environment() | {"HOME": os.fspath(tmp_path)}
        environment |= dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "")
        buttersink(f"s3://{bucket.name}/", environment=environment)
        (tmp_path / ".boto").write_text(text.replace(server.secret_key, "wrong"))
        refused(f"s3://{bucket.name}/", environment)

    def test_of_a_profile_with_an_endpoint(
        self, server: Server, bucket: Bucket, tmp_path: Path
    ) -> None:
        (tmp_path / "config").write_text(
            f"[profile there]\nendpoint_url = {server.endpoint}\nregion = us-east-1\n"
            f"aws_access_key_id = {server.access_key}\n"
            f"aws_secret_access_key = {server.secret_key}\n"
        )
        given = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION")
        environment = server.environment() | dict.fromkeys(given, "")
        environment |= {
            "AWS_CONFIG_FILE": os.fspath(tmp_path / "config"),
            "AWS_PROFILE": "there",
            "AWS_DEFAULT_REGION": "",
        }
        buttersink(f"s3://{bucket.name}/", environment=environment)


class TestPlaces:
    def test_no_such_bucket(self, server: Server) -> None:
        assert "no such bucket" in refused("s3://no-such-bucket/", server.environment())

    def test_no_such_bucket_to_write_to(self, server: Server, bucket: Bucket) -> None:
        said = refused("s3://no-such-bucket/", server.environment(), source=f"s3://{bucket.name}/")
        assert "no such bucket" in said

    def test_nobody_listens(self, server: Server) -> None:
        nobody = replace(server, endpoint=f"http://{HOST}:{free_port()}")
        assert "AWS_ENDPOINT_URL" in refused("s3://some/", nobody.environment())

    def test_no_such_host(self, server: Server) -> None:
        nowhere = replace(server, endpoint="http://no-such-host.invalid")
        assert "AWS_ENDPOINT_URL" in refused("s3://some/", nowhere.environment())

    @pytest.mark.parametrize(
        ("status", "body", "kind"),
        [
            (200, b"<!doctype html><title>Welcome<p>to nginx", "text/html"),
            (200, b"<html><body>well formed</body></html>", "text/html"),
            (200, b'{"it": "works"}', "application/json"),
            (200, b"", "text/plain"),
            (404, b"<html>Not here</html>", "text/html"),
            (404, b"nothing here", "text/plain"),
            (400, b"<html><body>Bad request<br></body></html>", "text/html"),
            (405, b"", "text/plain"),
        ],
    )
    def test_is_no_s3(self, server: Server, status: int, body: bytes, kind: str) -> None:
        with Answering(status, body, kind) as front:
            other = replace(server, endpoint=front.endpoint)
            assert "AWS_ENDPOINT_URL" in refused("s3://some/", other.environment())

    def test_is_no_http(self, server: Server) -> None:
        with closing(socket.create_server((HOST, 0))) as listener:
            thread = Thread(target=_talk_nonsense, args=(listener,), daemon=True)
            thread.start()
            other = replace(server, endpoint=f"http://{HOST}:{listener.getsockname()[1]}")
            assert "AWS_ENDPOINT_URL" in refused("s3://some/", other.environment())

    def test_is_no_url(self, server: Server) -> None:
        other = replace(server, endpoint="nonsense")
        assert "AWS_ENDPOINT_URL" in refused("s3://some/", other.environment())


def _talk_nonsense(listener: socket.socket) -> None:
    while True:
        try:
            connection, _peer = listener.accept()
        except OSError:
            return
        with connection:
            connection.recv(1 << 16)
            connection.sendall(b"220 mail.example.org ESMTP\r\n")


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """Serve S3 over TLS with a certificate that nobody has signed; return it, too."""
    directory = tmp_path_factory.mktemp("tls")
    certificate, key, port = directory / "cert.pem", directory / "key.pem", free_port()
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=test", "-addext", f"subjectAltName=IP:{HOST}"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    (directory / "data" / "bucket").mkdir(parents=True)
    command = (
        *(Path(sys.executable).parent / "rclone", "serve", "s3", "--addr", f"{HOST}:{port}"),
        *("--auth-key", "AKTEST,secret", "--cert", certificate, "--key", key, directory / "data"),
    )
    home = {"HOME": os.fspath(directory)}
    with running(*command, log=directory / "rclone.log", environment=home) as process:
        process.wait_until_answers(port)
        from tests.support.s3servers import Server, Traits

        traits = Traits(*([False] * 9))
        url = f"https://{HOST}:{port}"
        yield Server("tls", url, "AKTEST", "secret", process.process.pid, traits), certificate


class TestTls:
    def test_an_untrusted_certificate(self, secure: tuple[Server, Path]) -> None:
        server, _certificate = secure
        said = refused("s3://bucket/", server.environment())
        assert "AWS_CA_BUNDLE" in said

    def test_a_trusted_one(self, secure: tuple[Server, Path]) -> None:
        server, certificate = secure
        environment = server.environment() | {"AWS_CA_BUNDLE": os.fspath(certificate)}
        buttersink("s3://bucket/", environment=environment)

    def test_no_such_file_of_trusted_ones(self, secure: tuple[Server, Path]) -> None:
        server, _certificate = secure
        environment = server.environment() | {"AWS_CA_BUNDLE": "/no/such/file"}
        assert "AWS_CA_BUNDLE" in refused("s3://bucket/", environment)

    def test_none_where_it_is_expected(self, server: Server) -> None:
        plain = replace(server, endpoint=server.endpoint.replace("http:", "https:"))
        refused("s3://bucket/", plain.environment())

    def test_one_where_none_is_expected(self, secure: tuple[Server, Path]) -> None:
        server = secure[0]
        plain = replace(server, endpoint=server.endpoint.replace("https:", "http:"))
        refused("s3://bucket/", plain.environment())
