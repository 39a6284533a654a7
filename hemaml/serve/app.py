"""The Flask application: what each address answers."""

import hmac
from collections import defaultdict
from collections.abc import Callable
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path

from flask import Flask, Response, jsonify, request, send_from_directory
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from pydantic import BaseModel

from hemaml.serve.answers import Explanation, Health, Limits, Models, Prediction, ServedTask, Tasks
from hemaml.serve.champions import Champions
from hemaml.serve.explanations import explanation
from hemaml.serve.headers import add_headers
from hemaml.serve.judging import judged
from hemaml.serve.limits import Desk
from hemaml.serve.openapi import openapi
from hemaml.serve.problems import Refused, handle_problems
from hemaml.serve.samples import sample, samples
from hemaml.serve.settings import ServeSettings, trusted_hosts
from hemaml.serve.uploads import FIELDS, InMemory, uploads

API = "/api/v1"
Often = Callable[[Callable[[], Response]], Callable[[], Response]]
"""Refuses who asks too often."""
PAGE = Path(__file__).parent / "web" / "dist"
"""Folder of the built page, which may be absent."""
NO_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>hemaml</title></head><body>
<h1>hemaml</h1>
<p><strong>For research, not for diagnosis.</strong></p>
<p>The API answers; see <a href="/openapi.json">its description</a>. The page has not been built
here: it needs Node, and is made by <code>make page</code> in hemaml's repository. Packages of
hemaml that are installed from a wheel have it.</p>
</body></html>
"""


def create_app(champions: Champions, desk: Desk, settings: ServeSettings) -> Flask:
    """The application.

    Args:
        champions: The models that answer.
        desk: Where the work is done.
        settings: Limits, token, origins.
    """
    app = Flask(__name__, static_folder=None)
    app.request_class = InMemory
    app.config["MAX_CONTENT_LENGTH"] = settings.bytes
    app.config["MAX_FORM_PARTS"] = settings.images + FIELDS
    app.config["TRUSTED_HOSTS"] = trusted_hosts(settings)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    handle_problems(app)
    add_headers(app, settings.origins)
    if settings.token is not None:
        _ask_for_token(app, settings.token.get_secret_value())
    limiter = Limiter(
        get_remote_address, app=app, storage_uri="memory://", strategy="moving-window",
        headers_enabled=True,
    )  # fmt: skip
    often = limiter.limit(f"{settings.requests_per_minute} per minute")
    _add_facts(app, champions, settings)
    _add_answers(app, champions, desk, settings, often)
    _add_page(app, PAGE)
    return app


def _ask_for_token(app: Flask, token: str) -> None:
    @app.before_request
    def _check() -> None:
        private = request.path.startswith(f"{API}/") and request.path != f"{API}/health"
        if not private or request.method == "OPTIONS":
            return
        kind, _, sent = request.headers.get("Authorization", "").partition(" ")
        equal = hmac.compare_digest(sent.encode(), token.encode())
        if not (kind.lower() == "bearer" and equal):
            raise Refused(
                HTTPStatus.UNAUTHORIZED,
                "a request must have the server's token",
                "this one has another" if sent else "this one has none",
                "Send the header `Authorization: Bearer TOKEN`.",
                {"WWW-Authenticate": "Bearer"},
            )


def _add_facts(app: Flask, champions: Champions, settings: ServeSettings) -> None:
    """What is known without any image."""
    described = openapi(version("hemaml"), settings)

    @app.get("/health")
    @app.get(f"{API}/health")
    def health() -> Response:
        loaded, registry = champions.loaded(), champions.registry()
        well = registry.problem is None and not any(one.problem for one in loaded)
        return _json(
            Health(
                status="ok" if well else "degraded",
                version=version("hemaml"),
                token_required=settings.token is not None,
                limits=Limits(**{name: getattr(settings, name) for name in Limits.model_fields}),
                models=loaded,
                registry=registry,
            )
        )

    @app.get(f"{API}/tasks")
    def tasks() -> Response:
        by_task = defaultdict(list)
        for served in champions.all():
            by_task[served.facts.task, served.facts.kind].append(served.facts.name)
        found = [
            ServedTask(name=name, kind=kind, title=_title(name), models=models)
            for (name, kind), models in sorted(by_task.items())
        ]
        return _json(Tasks(tasks=found))

    @app.get(f"{API}/models")
    def models() -> Response:
        return _json(Models(models=[served.facts for served in champions.all()]))

    @app.get(f"{API}/samples")
    def sample_list() -> Response:
        return _json(samples())

    @app.get(f"{API}/samples/<name>.png")
    def sample_picture(name: str) -> Response:
        return Response(sample(name), mimetype="image/png")

    @app.get("/openapi.json")
    def description() -> Response:
        return jsonify(described)


def _add_answers(
    app: Flask, champions: Champions, desk: Desk, settings: ServeSettings, often: Often
) -> None:
    """What models say of images."""

    @app.post(f"{API}/predict")
    @often
    def predict() -> Response:
        sent = uploads(request, "images", most=settings.images)
        served = champions.get(request.form.get("model"))

        def work() -> Prediction:
            images = [upload.decoded(settings.pixels) for upload in sent]
            return Prediction(model=served.answering, results=judged(served, sent, images))

        return _json(desk.do(work))

    @app.post(f"{API}/explain")
    @often
    def explain() -> Response:
        (sent,) = uploads(request, "image", most=1)
        served = champions.get(request.form.get("model"))
        asked = {name: request.form.get(name) or None for name in ("target", "method")}

        def work() -> Explanation:
            image = sent.decoded(settings.pixels)
            (result,) = judged(served, [sent], [image])
            why = explanation(served, image, result, **asked)
            return Explanation(model=served.answering, result=result, explanation=why)

        return _json(desk.do(work))


def _add_page(app: Flask, page: Path) -> None:
    @app.get("/")
    def index() -> Response:
        if not (page / "index.html").is_file():
            return Response(NO_PAGE, mimetype="text/html")
        return send_from_directory(page, "index.html", max_age=0)

    @app.get("/assets/<path:name>")
    def assets(name: str) -> Response:
        # Their names hold a digest of their content.
        return send_from_directory(page / "assets", name, max_age=31_536_000)


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(), mimetype="application/json")


def _title(task: str) -> str:
    return task.replace("_", " ")
