"""Headers of every answer: what browsers may do with it, and who else may read it."""

from collections.abc import Collection

from flask import Flask, Response, request

SECURITY = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
API = "/api/"
NEVER_KEPT = {"Cache-Control": "no-store"}


def add_headers(app: Flask, origins: Collection[str]) -> None:
    """Adds them to each answer of the application; CORS for these origins alone."""

    @app.after_request
    def _add(response: Response) -> Response:
        response.headers.update(SECURITY)
        if request.path.startswith(API) or request.path == "/health":
            response.headers.update(NEVER_KEPT)
        origin = request.headers.get("Origin")
        if origins:
            response.headers.add("Vary", "Origin")
        if origin in origins:
            response.headers["Access-Control-Allow-Origin"] = str(origin)
            response.headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type"
            response.headers["Access-Control-Allow-Methods"] = "GET, POST"
            response.headers["Access-Control-Expose-Headers"] = "Retry-After"
            response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        return response
