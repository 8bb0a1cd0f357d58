"""A client of OpenAI-compatible servers: one question, with or without an image, gives one answer.

Images are sent as data URLs, never as addresses for the server to fetch; redirects are not followed, so that neither
the key nor an image goes anywhere but to the address that the user named.
"""

from __future__ import annotations

import base64
import io
import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from safevlm.errors import EndpointError
from safevlm.printable import shortened

MAX_RESPONSE = 1 << 20
"""Bytes of a response that are read, 1 MiB."""


@dataclass(frozen=True)
class Endpoint:
    """A model on a server that speaks OpenAI's chat API, such as vLLM.

    Args:
        url: of the API, up to `/v1`; http or https.
        model: the server's name for the model.
        key_env: name of the environment variable that holds the API key; "": no key is sent.
        timeout: seconds to wait for each response.

    Raises:
        ValueError: another kind of address, no model, or an environment variable that is not set.
    """

    url: str
    model: str
    key_env: str = ""
    timeout: float = 60.0

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).hostname:
            raise ValueError(
                f"{shortened(self.url)} is no address of a server; write it like http://localhost:8000/v1"
            )
        if not self.model:
            raise ValueError(
                f"{self.url}: no model is named; name the one that the server should answer with"
            )
        if self.key_env and not os.environ.get(self.key_env):
            raise ValueError(
                f"the environment variable {self.key_env} is not set; put the API key in it, or name another"
            )

    def ask(self, prompt: str, image: Image.Image | None = None, *, max_new_tokens: int) -> str:
        """The answer to a prompt, greedily decoded.

        Args:
            image: RGB; sent as PNG.

        Raises:
            EndpointError: no answer within the time, an error of the server, or another form than the chat API's.
        """
        content: list[dict[str, Any]] = (
            [] if image is None else [{"type": "image_url", "image_url": {"url": _data_url(image)}}]
        )
        content.append({"type": "text", "text": prompt})
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": max_new_tokens,
            "temperature": 0,
        }
        found = self._post(json.dumps(body).encode())
        try:
            text = found["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError) as error:
            raise EndpointError(
                f"{self.url}: the response has no choices[0].message.content; is it a chat API?"
            ) from error
        if text is not None and not isinstance(text, str):
            raise EndpointError(
                f"{self.url}: the answer is a {type(text).__name__}, not text; ask another model"
            )
        return text or ""

    def _post(self, body: bytes) -> Any:
        headers = {"Content-Type": "application/json"}
        if self.key_env:
            headers["Authorization"] = f"Bearer {os.environ[self.key_env]}"
        request = urllib.request.Request(f"{self.url.rstrip('/')}/chat/completions", body, headers)
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=self.timeout) as response:
                data = response.read(MAX_RESPONSE + 1)
        except urllib.error.HTTPError as error:
            said = error.read(400).decode("utf-8", "replace")
            raise EndpointError(
                f"{self.url}: the server answers {error.code} ({shortened(said)}); see its log"
            ) from error
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise EndpointError(
                f"{self.url}: no answer ({shortened(str(reason))}); check the address and the server"
            ) from error
        if len(data) > MAX_RESPONSE:
            raise EndpointError(
                f"{self.url}: the response has more than {MAX_RESPONSE:,} bytes; lower the answer's length"
            )
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise EndpointError(f"{self.url}: the response is not JSON; is it a chat API?") from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Makes a redirect the HTTP error that it is without one who follows it."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
