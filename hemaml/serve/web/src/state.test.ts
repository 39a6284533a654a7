import { expect, test } from "vitest";
import type { Problem, Result } from "./api";
import { batch, EMPTY, type Page, reduce } from "./state";

const image = (name: string, size = 1) => {
  return { file: new File([new Uint8Array(size)], name), url: `blob:${name}` };
};
const added = (...names: string[]): Page =>
  reduce(EMPTY, { type: "added", images: names.map((name) => image(name)) });
const by = { name: "m", version: 1, uri: "models:/m/1" };
const found = (label: string) => ({ label }) as Result;

test("the first image is chosen, and its neighbour once it is removed", () => {
  let page = added("a", "b", "c");
  expect(page.chosen).toBe(0);
  page = reduce(page, { type: "chosen", id: 2 });
  page = reduce(page, { type: "removed", id: 2 });
  expect(page.chosen).toBe(1);
  page = reduce(reduce(page, { type: "removed", id: 0 }), { type: "removed", id: 1 });
  expect([page.items, page.chosen]).toEqual([[], null]);
  expect(reduce(page, { type: "added", images: [image("d")] }).items[0]?.id).toBe(3);
});

test("what an image is added with is all that it is made of", () => {
  const { file, url } = image("a");
  const page = reduce(EMPTY, { type: "added", images: [{ file, url }] });
  expect(page.items).toMatchObject([{ id: 0, file, url, state: "waiting" }]);
});

test("answers come to the images that were sent, in their order", () => {
  let page = reduce(added("a", "b", "c"), { type: "asked", ids: [0, 2], model: "m" });
  page = reduce(page, {
    type: "answered",
    ids: [0, 2],
    model: "m",
    results: [found("x"), found("y")],
    by,
  });
  expect(page.items.map((item) => [item.state, item.result?.label])).toEqual([
    ["done", "x"],
    ["waiting", undefined],
    ["done", "y"],
  ]);
});

test("what a model says that is asked no more is not shown", () => {
  let page = reduce(added("a"), { type: "asked", ids: [0], model: "old" });
  page = reduce(reduce(page, { type: "model" }), { type: "asked", ids: [0], model: "new" });
  const late = reduce(page, {
    type: "answered",
    ids: [0],
    model: "old",
    results: [found("x")],
    by,
  });
  expect(late.items[0]?.state).toBe("asking");
  const refused = reduce(page, { type: "failed", ids: [0], model: "old", problem: {} as Problem });
  expect(refused.items[0]?.state).toBe("asking");
});

test("a request has no more images and bytes than the server takes", () => {
  const page = reduce(EMPTY, {
    type: "added",
    images: [image("a", 3000), image("b", 3000), image("c", 90_000), image("d")],
  });
  const names = (limits: { images: number; bytes: number }) =>
    batch(page.items, limits).map((item) => item.file.name);
  expect(names({ images: 2, bytes: 1e6 })).toEqual(["a", "b"]);
  expect(names({ images: 9, bytes: 5000 })).toEqual(["a"]);
  const large = reduce(EMPTY, { type: "added", images: [image("c", 90_000)] });
  expect(batch(large.items, { images: 9, bytes: 5000 })).toHaveLength(1); // the server says why not
});
