"""Limits how fast one visitor may upload, before a byte of it is read."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from typing import Any


_SECONDS = 60
_MAX_UPLOADS = 30
_MAX_BYTES = 128 * 2**20
_MAX_VISITORS = 10_000
_MESSAGE = b"These are many uploads at once. Please wait a minute and try again."


class UploadLimit:
    """ASGI middleware: above the limit, an upload is answered with status 429 and a sentence.

    Args:
        app (`Callable`): The application behind it.
        clock (`Callable`, *optional*): Seconds that never go back.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], clock: Callable[[], float] = time.monotonic):
        self._app, self._clock = app, clock
        self._seen: dict[str, deque[tuple[float, int]]] = defaultdict(deque)

    async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        is_upload = scope["type"] == "http" and scope["method"] == "POST" and scope["path"].endswith("/upload")
        if not is_upload or self._is_allowed(scope):
            await self._app(scope, receive, send)
            return
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"retry-after", str(_SECONDS).encode())]
        await send({"type": "http.response.start", "status": 429, "headers": headers})
        await send({"type": "http.response.body", "body": _MESSAGE})

    def _is_allowed(self, scope: dict[str, Any]) -> bool:
        headers, now = dict(scope["headers"]), self._clock()
        # Behind a proxy, the proxy names the visitor last; what stands before it, anybody can write.
        forwarded = headers.get(b"x-forwarded-for", b"").decode("latin-1").split(",")[-1].strip()
        visitor = forwarded or (scope.get("client") or ("",))[0]
        announced = headers.get(b"content-length", b"")
        size = int(announced) if announced.isdigit() else _MAX_BYTES
        if len(self._seen) > _MAX_VISITORS:
            self._seen = defaultdict(
                deque, {name: seen for name, seen in self._seen.items() if seen and now - seen[-1][0] < _SECONDS}
            )
        seen = self._seen[visitor]
        while seen and now - seen[0][0] >= _SECONDS:
            seen.popleft()
        if len(seen) >= _MAX_UPLOADS or (seen and sum(size for _, size in seen) + size > _MAX_BYTES):
            return False
        seen.append((now, size))
        return True
