"""A gateway on a Redis that lets in nobody without TLS, a name and a password, and lets them do little."""

from pathlib import Path

import pytest

from gateway.billing.ledger import violations
from tests.books import read_books
from tests.e2e.client import CHAT, IMAGES, JOBS, send
from tests.servers import AUTHORITY, Server, confine, servers
from tests.stack import Admin, chat, running_stack

pytestmark = [pytest.mark.debian, pytest.mark.slow]


def test_all_that_a_gateway_does_it_may(tmp_path: Path) -> None:
    """The rights that docs/operations.md grants are enough, and the shared connection speaks TLS on the gateway's own
    event loop too."""
    with servers() as started:
        started.append(Server(tmp_path, tls=True))
        user = confine(started[0])
        url = f"rediss://{user}@localhost:{started[0].port}/0?ssl_ca_certs={AUTHORITY}"
        with running_stack(url) as stack:
            gateway = stack.gateway()
            admin = Admin(gateway.url)
            key = admin.key("research", "an")["key"]
            again = {"idempotency-key": "order-1"}
            chats = [send(gateway.url, CHAT, chat(), key, again) for _ in range(2)]
            assert [200, 200] == [answer.status for answer in chats]
            submitted = send(gateway.url, IMAGES, {"model": "realvision", "prompt": "A tree"}, key).json
            job = {"jobid": str(submitted["jobid"]), "signature": submitted["signature"]}
            assert 200 == send(gateway.url, JOBS, job).status
            assert admin.http.get("/readyz").is_success
            assert "gateway_holds_open" in admin.http.get("/metrics").text
            assert 2 == sum(row["requests"] for row in admin.get("/usage", group_by="team")["data"])
            assert [] == violations(read_books(url))
            assert 2 == len(stack.bill()["lines"])
            assert 0 == gateway.stop()
            assert "the ledger cannot be reached" not in gateway.output  # which is what a right too few is told as
