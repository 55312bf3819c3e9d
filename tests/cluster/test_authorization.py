"""Flags of structured types reach the master: credentials and ACLs are obeyed."""

import base64
import http.client
import json
from pathlib import Path

import pytest

from scheduler.cluster import ClusterOptions, EmbeddedCluster

pytestmark = pytest.mark.cluster


def status_of(address: str, path: str, method: str = "GET", credentials: str = "") -> int:
    headers = {"Authorization": "Basic " + base64.b64encode(credentials.encode()).decode()} if credentials else {}
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_credentials_and_acls(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    entries = [{"principal": "operator", "secret": "one"}, {"principal": "guest", "secret": "two"}]
    credentials.write_text(json.dumps({"credentials": entries}))
    credentials.chmod(0o600)
    nobody = {"principals": {"values": ["guest"]}, "paths": {"type": "NONE"}}
    flags = {
        "authenticate_http_readwrite": "true",
        "credentials": f"file://{credentials}",
        "acls": json.dumps({"get_endpoints": [nobody]}),
    }
    options = ClusterOptions(agents=1, master_flags={**flags, "authenticate_http_readonly": "false"})
    with EmbeddedCluster(tmp_path / "cluster", options=options) as cluster:
        create = "/master/teardown"
        assert status_of(cluster.master, create, "POST") == http.client.UNAUTHORIZED
        assert status_of(cluster.master, create, "POST", "guest:wrong") == http.client.UNAUTHORIZED
        assert status_of(cluster.master, create, "POST", "guest:two") == http.client.BAD_REQUEST
        assert status_of(cluster.master, "/version") == http.client.OK
