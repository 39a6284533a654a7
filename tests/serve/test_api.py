"""What the server answers and refuses, over HTTP, with models that cost nothing."""

import io
import threading

import pytest
from PIL import Image
from serve.fakes import PREDICT, FakeRegistry, picture, served, share_of, wait_for

from hemaml.core.errors import ConfigError, StoreError
from hemaml.serve.champions import Champions
from hemaml.serve.settings import serve_settings

TOKEN = "0123456789abcdef-secret"
NOTICE = "For research, not for diagnosis."


@pytest.fixture(scope="module")
def client():
    with served(FakeRegistry(), images=4, bytes=200_000, pixels=50_000) as found:
        yield found


def refused(reply, status, *words):
    """Checks a problem: its status, its form, what it tells."""
    assert reply.status == status, reply.body
    assert reply.headers["Content-Type"] == "application/problem+json"
    told = reply.body
    assert set(told) == {
        "type", "title", "status", "detail", "rule", "value", "action", "instance",
    }  # fmt: skip
    assert told["status"] == status
    assert told["rule"] and told["value"] and told["action"]
    for word in words:
        assert word in told["detail"]
    return told


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
def test_an_image_of_each_kind_is_judged(client, kind):
    reply = client.predict(picture(kind))
    assert reply.status == 200 and reply.body["notice"] == NOTICE
    assert reply.body["model"] == {"name": "stub", "version": 1, "uri": "models:/stub/1"}
    (result,) = reply.body["results"]
    assert (result["width"], result["height"], result["label"]) == (24, 24, "no")
    assert result["probabilities"]["yes"] == pytest.approx(share_of(1))


def test_results_come_in_the_order_of_the_files(client):
    files = [("images", f"{side}.png", picture(side=side)) for side in (30, 20, 25)]
    results = client.send(PREDICT, files).body["results"]
    assert [(r["index"], r["name"], r["width"]) for r in results] == [
        (0, "30.png", 30), (1, "20.png", 20), (2, "25.png", 25),
    ]  # fmt: skip


def test_one_bad_file_refuses_all_and_is_named_without_its_folders(client):
    files = [
        ("images", "good.png", picture()),
        ("images", "../../etc/a\x07b.png", picture()[:100]),
    ]
    told = refused(client.send(PREDICT, files), 422, "images[1] (ab.png)", "whole")
    assert told["action"] and "etc" not in told["detail"]


def test_limits_of_bytes_images_and_pixels(client):
    refused(client.predict(*[picture()] * 5), 400, "1 to 4 files")
    refused(client.predict(b"\x89PNG\r\n\x1a\n" + bytes(210_000)), 413)
    refused(client.predict(bytes(1_000_000)), 413)  # more than the server itself takes
    refused(client.predict(picture(side=224)[:-1] + b"x"), 422, "50,000 pixels")
    refused(client.ask(PREDICT, b"{}", {"Content-Type": "application/json"}), 415, "multipart")
    refused(client.send(PREDICT, [], {"model": "stub"}), 400, "1 to 4 files")


def test_several_frames_are_refused_since_one_would_be_chosen(client):
    file = io.BytesIO()
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(file, "TIFF", save_all=True, append_images=frames[1:])
    refused(client.predict(file.getvalue()), 422, "one frame")


def test_unknown_names_list_the_known(client):
    told = refused(client.predict(picture(), model="stubb"), 404, "stubb", "known: stub")
    assert told["action"] == "Name one of: stub."
    refused(client.ask("/api/v1/nothing"), 404)
    reply = client.ask(PREDICT)
    refused(reply, 405)
    assert "POST" in reply.headers["Allow"]
    refused(client.ask("/api/v1/samples/none.png"), 404, "neutrophil")


def test_headers_of_every_answer(client):
    for path in ("/", "/health", "/api/v1/models", "/nothing", "/openapi.json", PREDICT):
        headers = client.ask(path).headers
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Access-Control-Allow-Origin"] is None
        if path.startswith("/api"):
            assert headers["Cache-Control"] == "no-store"
    too_long = client.ask(PREDICT, bytes(1_000_000), {"Content-Type": "image/png"})
    assert too_long.status == 413 and too_long.headers["X-Frame-Options"] == "DENY"


def test_facts(client):
    health = client.ask("/health").body
    assert health == client.ask("/api/v1/health").body | {"registry": health["registry"]}
    assert (health["status"], health["token_required"]) == ("ok", False)
    assert health["limits"] == {
        "bytes": 200_000, "pixels": 50_000, "images": 4, "requests_per_minute": 10**6,
    }  # fmt: skip
    tasks = client.ask("/api/v1/tasks").body
    assert tasks["notice"] == NOTICE and tasks["tasks"][0]["models"] == ["stub"]
    (model,) = client.ask("/api/v1/models").body["models"]
    assert (model["name"], model["version"], model["split"]["leaky"]) == ("stub", 1, False)
    for sample in client.ask("/api/v1/samples").body["samples"]:
        with Image.open(io.BytesIO(client.ask(sample["url"]).body)) as drawn:
            assert drawn.size == (224, 224) and "no real blood" in sample["text"]


def test_without_a_page_the_root_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr("hemaml.serve.app.PAGE", tmp_path)
    with served(FakeRegistry()) as client:
        page = client.ask("/").body.decode()
    assert "make page" in page and NOTICE in page


def test_a_token_is_asked_for_by_all_but_health_and_the_page():
    with served(FakeRegistry(), token=TOKEN) as client:
        assert client.ask("/api/v1/health").body["token_required"] is True
        assert client.ask("/").status == 200
        for sent in ({}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": TOKEN}):
            reply = client.ask("/api/v1/models", headers=sent)
            told = refused(reply, 401)
            assert reply.headers["WWW-Authenticate"] == "Bearer" and TOKEN not in str(told)
        assert client.send(PREDICT, [("images", "a.png", picture())]).status == 401
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert client.ask("/api/v1/models", headers=right).status == 200


def test_other_origins_are_let_in_only_where_they_are_named():
    with served(FakeRegistry(), origins="https://lab.example") as client:
        for origin, let_in in (("https://lab.example", True), ("https://evil.example", False)):
            headers = client.ask("/api/v1/models", headers={"Origin": origin}).headers
            assert (headers["Access-Control-Allow-Origin"] == origin) is let_in


def test_a_name_that_a_stranger_gave_this_machine_is_refused():
    with served(FakeRegistry(), hosts="cells.example") as client:
        for host, let_in in (
            ("127.0.0.1", True), ("localhost:9", True), ("localhost.evil", False),
            ("cells.example", True), ("evil.example", False),
        ):  # fmt: skip
            reply = client.ask("/api/v1/models", headers={"Host": host})
            assert reply.status == (200 if let_in else 400), host
    with served(FakeRegistry(), token=TOKEN) as client:
        headers = {"Host": "any.example", "Authorization": f"Bearer {TOKEN}"}
        assert client.ask("/api/v1/models", headers=headers).status == 200


def test_who_asks_too_often_is_told_when_to_ask_again():
    with served(FakeRegistry(), requests_per_minute=3) as client:
        replies = [client.predict(picture()) for _ in range(5)]
        assert [reply.status for reply in replies] == [200] * 3 + [429] * 2
        refused(replies[-1], 429)
        assert 0 < int(replies[-1].headers["Retry-After"]) <= 60
        assert client.ask("/health").status == 200


def test_more_than_the_queue_holds_is_refused_at_once_and_health_answers():
    with served(FakeRegistry(seconds=1.0), queue=2) as client:
        replies = []
        threads = [
            threading.Thread(target=lambda: replies.append(client.predict(picture())))
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        assert client.ask("/health").status == 200
        for thread in threads:
            thread.join()
        assert sorted(reply.status for reply in replies) == [200] * 2 + [503] * 4
        for reply in replies:
            if reply.status == 503:
                refused(reply, 503, "at most 2 requests")
                assert int(reply.headers["Retry-After"]) >= 1
        assert client.predict(picture()).status == 200


def test_a_model_that_fails_is_a_problem_without_its_insides(caplog):
    registry = FakeRegistry()
    with served(registry) as client:

        def fail(images):
            raise RuntimeError("secret insides")

        client.champions.get("stub").opened.model.predict = fail
        told = refused(client.predict(picture()), 500)
        assert "secret" not in str(told)
    assert "secret insides" in caplog.text


def test_champions_are_swapped_under_load_and_each_answer_is_of_the_version_it_names():
    registry, answers, ended = FakeRegistry(), [], threading.Event()
    with served(registry, queue=50) as client:

        def ask():
            while not ended.is_set():
                reply = client.predict(picture())
                answers.append((reply.status, reply.body))

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for number in range(2, 9):
            registry.meant = {"stub": number}
            wait_for(lambda n=number: client.champions.get("stub").facts.version == n)
            seen = len(answers)
            wait_for(lambda seen=seen: len(answers) > seen + 12)
        ended.set()
        for thread in threads:
            thread.join()
    assert {status for status, _ in answers} == {200}
    versions = {body["model"]["version"] for _, body in answers}
    assert versions >= set(range(2, 9))
    for _, body in answers:
        share = body["results"][0]["probabilities"]["yes"]
        assert share == pytest.approx(share_of(body["model"]["version"]))
    assert registry.loaded == list(range(1, 9)), "each version is loaded once"


def test_a_registry_that_is_away_leaves_the_models_and_is_told():
    registry = FakeRegistry()
    with served(registry) as client:
        registry.away = True
        wait_for(lambda: client.ask("/health").body["status"] == "degraded")
        state = client.ask("/health").body["registry"]
        assert not state["reachable"] and "away" in state["problem"]
        assert client.predict(picture()).body["model"]["version"] == 1
        registry.away, registry.meant = False, {"stub": 2}
        wait_for(lambda: client.ask("/health").body["status"] == "ok")
        assert client.predict(picture()).body["model"]["version"] == 2


def test_a_version_that_cannot_be_loaded_leaves_the_one_before():
    registry = FakeRegistry()
    registry.broken = {2}
    with served(registry) as client:
        registry.meant = {"stub": 2, "other": 3}
        wait_for(lambda: len(client.champions.all()) == 2)
        told = {one["name"]: one for one in client.ask("/health").body["models"]}
        assert told["stub"]["version"] == 1 and "weights must be there" in told["stub"]["problem"]
        assert told["other"]["problem"] is None
        registry.broken.add(5)
        registry.meant = {"stub": 1, "other": 3, "new": 5}
        wait_for(lambda: "new/5" in (client.ask("/health").body["registry"]["problem"] or ""))
        assert client.ask("/health").body["status"] == "degraded"
        registry.meant = {"stub": 4}
        wait_for(lambda: client.champions.get("stub").facts.version == 4)
        wait_for(lambda: client.ask("/health").body["status"] == "ok")
        assert [one["name"] for one in client.ask("/health").body["models"]] == ["stub"]


def test_without_a_registry_there_is_nothing_to_start_with():
    registry = FakeRegistry()
    registry.away = True
    with pytest.raises(StoreError):
        Champions(registry, 1).start()


def test_several_models_and_none_named(client):
    registry = FakeRegistry()
    registry.meant = {"one": 1, "two": 2}
    with served(registry) as two:
        refused(two.predict(picture()), 400, "one, two")
        assert two.predict(picture(), model="two").body["model"]["version"] == 2


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"host": "0.0.0.0"}, "without a token"),
        ({"host": "::"}, "without a token"),
        ({"token": "short"}, "16 characters"),
        ({"port": 70_000}, "port"),
        ({"origins": "lab.example"}, "origins"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_settings_that_are_refused(options, told):
    with pytest.raises(ConfigError, match=told):
        serve_settings(options, [], None)


def test_settings_from_environment_options_and_file(monkeypatch, tmp_path):
    monkeypatch.setenv("HEMAML_SERVE_PORT", "9000")
    monkeypatch.setenv("HEMAML_SERVE_QUEUE", "7")
    monkeypatch.setenv("HEMAML_SERVE_MODELS", "leukemia,models:/graph/2")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    found = serve_settings({"port": 9001}, ["images=3"], tmp_path / "token")
    assert (found.port, found.queue, found.images) == (9001, 7, 3)
    assert found.models == ("leukemia", "models:/graph/2")
    assert found.token.get_secret_value() == TOKEN and TOKEN not in repr(found)
    assert serve_settings({"host": "0.0.0.0", "open": True}, [], None).open
    with pytest.raises(ConfigError, match="command line"):
        serve_settings({}, [f"token={TOKEN}"], None)
    with pytest.raises(ConfigError, match="readable"):
        serve_settings({}, [], tmp_path / "absent")
