"""Sends huggingface_hub to an address on 127.0.0.1 before it reads its environment, which it does when it is imported.

So no test can reach the real Hub, see the developer's token or fill the developer's cache; `hub_server.py` answers at the
address where a test asks for the fixture `hub`. Processes that a test starts inherit all of it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import tempfile


SOCKET = socket.socket()
SOCKET.bind(("127.0.0.1", 0))  # until somebody listens, connections are refused at once
URL = f"http://127.0.0.1:{SOCKET.getsockname()[1]}"
_HOME = tempfile.mkdtemp(prefix="hf-home-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)

for _name in [name for name in os.environ if name.startswith(("HF_", "HUGGING_FACE_", "HUGGINGFACE_"))]:
    del os.environ[_name]
os.environ |= {
    "HF_ENDPOINT": URL,
    "HF_HOME": _HOME,
    "HF_HUB_DISABLE_XET": "1",  # large files go through LFS, which the server speaks
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
