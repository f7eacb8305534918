"""A fake of the service that atelier.py talks to."""

from __future__ import annotations

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from emp_trio.secrets import Secret
from emp_trio.testing.fake_service import FakeService
from emp_trio.testing.png import make_png


class FakeAtelier(FakeService):
    """Paints for ``seconds``; ``images`` has the time at which each is begun, by its id, until it is cancelled."""

    secret_headers = ("x-api-key",)

    def __init__(self, seconds: float = 0.01) -> None:
        super().__init__()
        self.api_key = Secret("atelier-key-0123")
        self.seconds = seconds
        self.images: dict[str, float] = {}
        self.begun = 0
        self.route("health", "GET", "/health", self._health)
        self.route("paint", "POST", "/images", self._paint)
        self.route("look", "GET", "/images/{id}", self._look)
        self.route("file", "GET", "/images/{id}/file", self._file)
        self.route("cancel", "DELETE", "/images/{id}", self._cancel)

    @property
    def painting(self) -> int:
        """Images that are being painted."""
        return sum(self._percent(image) < 100 for image in self.images)

    def refusal(self, request: Request, body: object) -> Response | None:
        """Only one key is good."""
        if request.headers.get("x-api-key") == self.api_key.reveal():
            return None
        return self.error(401, message="wrong key")

    def _percent(self, image: str) -> float:
        return min(100.0, 100 * (trio.current_time() - self.images[image]) / self.seconds)

    async def _health(self, request: Request, body: object) -> Response:
        return JSONResponse({"painting": self.painting})

    async def _paint(self, request: Request, body: object) -> Response:
        if not isinstance(body, dict) or body.keys() != {"prompt"}:
            self.violations.append(f"not a request for an image: {body}")
        self.begun += 1
        image = f"image-{self.begun}"
        self.images[image] = trio.current_time()
        return JSONResponse({"id": image, "state": "painting"}, 202)

    async def _look(self, request: Request, body: object) -> Response:
        image = request.path_params["id"]
        if image not in self.images:
            return self.error(404, message="no such image")
        percent = self._percent(image)
        return JSONResponse({"id": image, "state": "done" if percent == 100 else "painting", "percent": percent})

    async def _file(self, request: Request, body: object) -> Response:
        if request.path_params["id"] not in self.images:
            return self.error(404, message="no such image")
        return Response(make_png(), media_type="image/png")

    async def _cancel(self, request: Request, body: object) -> Response:
        self.images.pop(request.path_params["id"], None)
        return Response(status_code=204)
