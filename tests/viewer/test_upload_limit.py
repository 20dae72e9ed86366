"""One visitor cannot upload without end, and the others do not notice."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from hf_layertracer.viewer import upload_limit
from hf_layertracer.viewer.upload_limit import UploadLimit


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
def client(clock) -> TestClient:
    async def answer(request):
        return PlainTextResponse("taken")

    routes = [Route("/gradio_api/upload", answer, methods=["POST"]), Route("/other", answer, methods=["POST"])]
    return TestClient(Starlette(routes=routes, middleware=[Middleware(UploadLimit, clock=lambda: clock[0])]))


def upload(client, size: int = 10, visitor: str = "1.1.1.1", path: str = "/gradio_api/upload"):
    return client.post(path, content=b"x" * size, headers={"x-forwarded-for": f"9.9.9.9, {visitor}"})


def test_many_uploads_have_to_wait_a_minute(client, clock):
    for _ in range(upload_limit._MAX_UPLOADS):
        assert upload(client).status_code == 200
    refused = upload(client)
    assert refused.status_code == 429
    assert "wait a minute" in refused.text
    assert upload(client, visitor="2.2.2.2").status_code == 200
    assert upload(client, path="/other").status_code == 200
    clock[0] = 61
    assert upload(client).status_code == 200


def test_many_bytes_have_to_wait_too(client, monkeypatch):
    monkeypatch.setattr(upload_limit, "_MAX_BYTES", 1000)
    assert [upload(client, 600).status_code for _ in range(2)] == [200, 429]
    assert upload(client, 300).status_code == 200
