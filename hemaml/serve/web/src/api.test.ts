import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { models, predict, Refused } from "./api";

const answers: (Response | Error)[] = [];
const asked: [string, RequestInit][] = [];

beforeEach(() => {
  vi.useFakeTimers();
  answers.length = asked.length = 0;
  vi.stubGlobal("fetch", async (url: string, init: RequestInit) => {
    asked.push([url, init]);
    const answer = answers.shift();
    if (!answer || answer instanceof Error) throw answer ?? new Error("asked too often");
    return answer;
  });
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const busy = (seconds: string) =>
  Response.json(
    { title: "Busy", detail: "d", rule: "r" },
    { status: 503, headers: { "Retry-After": seconds } },
  );

test("a busy server is asked again after the time it names, and the wait is told", async () => {
  answers.push(busy("2"), Response.json({ model: {}, results: [] }));
  const told: number[] = [];
  const waiting = (seconds: number) => told.push(seconds);
  const found = predict([new File(["x"], "a.png")], "m", { token: null, waiting });
  await vi.advanceTimersByTimeAsync(1900);
  expect(asked).toHaveLength(1);
  await vi.advanceTimersByTimeAsync(200);
  expect(await found).toEqual({ model: {}, results: [] });
  expect(told).toEqual([2, 1, 0]);
});

test("a server that stays busy is given up with its own words", async () => {
  answers.push(...Array.from({ length: 7 }, () => busy("1")));
  const found = predict([], "m", { token: null }).catch((error: unknown) => error);
  await vi.runAllTimersAsync();
  expect(((await found) as Refused).problem.title).toBe("Busy");
});

test("the images and the model are sent as a form, with the token", async () => {
  answers.push(Response.json({}));
  await predict([new File(["x"], "a.png"), new File(["y"], "b.png")], "m", { token: "secret" });
  const [url, init] = asked[0] ?? ["", {}];
  const body = init.body as FormData;
  expect(url).toBe("/api/v1/predict");
  expect(body.get("model")).toBe("m");
  expect(body.getAll("images").map((one) => (one as File).name)).toEqual(["a.png", "b.png"]);
  expect((init.headers as Headers).get("Authorization")).toBe("Bearer secret");
});

test.each([
  [Response.json({ title: "T", detail: "d", rule: "r" }, { status: 422 }), "r"],
  [new Response("<html>", { status: 502 }), "the server answered 502"],
  [Response.json({ message: "bad gateway" }, { status: 502 }), "the server answered 502"],
  [Response.json(null, { status: 502 }), "the server answered 502"],
  [new Response('{"models": [{"na'), "the server must answer"],
  [new Response("<html>"), "the server must answer"],
  [new TypeError("network"), "the server must answer"],
])("why there is no answer is always told", async (answer, rule) => {
  answers.push(answer);
  const error = await models({ token: null }).catch((found: unknown) => found);
  expect(error).toBeInstanceOf(Refused);
  expect((error as Refused).problem.rule).toBe(rule);
});

test("who stopped a request is told of no problem", async () => {
  const stopped = new DOMException("stopped", "AbortError");
  answers.push(Object.assign(new Response(), { json: () => Promise.reject(stopped) }));
  await expect(models({ token: null })).rejects.toBe(stopped);
});
