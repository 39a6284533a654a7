import { cleanup, render, screen, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { ModelFacts, Problem } from "./api";
import { App } from "./app";
import { NOTICE } from "./words";

const MODEL: ModelFacts = {
  name: "leukemia",
  version: 3,
  uri: "models:/leukemia/3",
  alias: "champion",
  task: "leukemia",
  kind: "classification",
  objective: "leukemia.svm",
  data: "all_images",
  classes: ["healthy", "ALL"],
  metrics: { accuracy: { value: 0.95, low: 0.9, high: 0.98, part: "held out" } },
  split: { kind: "images", leaky: true, text: "Split by image." },
  card: "# Card\n<script>alert(1)</script><img src=x onerror=alert(1)>",
  explains: null,
  novelty: true,
  calibration: null,
};
const LIMITS = { bytes: 1e6, pixels: 1e6, images: 8, requests_per_minute: 600 };
const BROKEN: Problem = {
  title: "Unprocessable",
  status: 422,
  detail: "an image must decode, but b.png is cut off",
  rule: "an image must decode",
  value: "b.png is cut off",
  action: "Send it again.",
};

let locked = false;
let version = 3;

const now = () => ({ ...MODEL, version, uri: `models:/leukemia/${version}` });

beforeEach(() => {
  URL.createObjectURL = () => "blob:x";
  URL.revokeObjectURL = () => {};
  sessionStorage.clear();
  vi.stubGlobal("fetch", async (url: string, init: RequestInit) => {
    const sent = (init.headers as Headers).get("Authorization");
    if (url.endsWith("/health"))
      return Response.json({ status: "ok", token_required: locked, limits: LIMITS, models: [] });
    if (locked && sent !== "Bearer right")
      return Response.json({ ...BROKEN, status: 401 }, { status: 401 });
    if (url.endsWith("/models")) return Response.json({ models: [now()] });
    if (url.endsWith("/samples")) return Response.json({ samples: [] });
    const files = (init.body as FormData).getAll("images") as File[];
    if (files.some((file) => file.name === "b.png")) return Response.json(BROKEN, { status: 422 });
    const results = files.map((file, index) => {
      const share = file.name === "a.png" ? 0.97 : 0.6;
      return {
        index,
        name: file.name,
        width: 5,
        height: 4,
        label: "ALL",
        segmentation: null,
        probabilities: { ALL: share, healthy: 1 - share },
        novelty: { distance: 9, percentile: 100, unlike: share < 0.9, text: "Unlike the others." },
      };
    });
    return Response.json({ model: now(), results });
  });
});

afterEach(() => {
  cleanup();
  locked = false;
  version = 3;
  vi.unstubAllGlobals();
});

async function withImages(...names: string[]) {
  const user = userEvent.setup();
  render(<App />);
  const files = names.map((name) => new File([name], name, { type: "image/png" }));
  await user.upload(await screen.findByLabelText("Image files"), files);
  return user;
}

test("an image is answered with its probabilities, and what they are worth", async () => {
  await withImages("a.png");
  const result = within(await screen.findByRole("region", { name: "Result of a.png" }));
  expect(await result.findByText("a clear answer")).toBeTruthy();
  expect(result.getByText("97.0 %")).toBeTruthy();
  expect(result.getByText(/was not measured/)).toBeTruthy();
  expect(result.getByText(/accuracy: .950 \(.900 to .980\), held out/)).toBeTruthy();
  expect(result.getByText(/images of one patient on both sides/)).toBeTruthy();
  expect(screen.getByText(NOTICE)).toBeTruthy();
});

test("a bad file among others is refused alone", async () => {
  const user = await withImages("a.png", "b.png", "c.png");
  await screen.findByText("3 images answered");
  const table = within(screen.getByRole("region", { name: "Table of all images" }));
  expect(table.getByText("97.0 %")).toBeTruthy();
  expect(table.getByText(/refused: an image must decode/)).toBeTruthy();
  await user.click(table.getByRole("button", { name: "b.png" }));
  const note = within(screen.getByRole("region", { name: "Result of b.png" })).getByRole("alert");
  for (const part of ["An image must decode.", "B.png is cut off.", "Send it again."])
    expect(note.textContent).toContain(part);
});

test("rows are ordered by what their heading says", async () => {
  const user = await withImages("a.png", "c.png");
  const table = within(await screen.findByRole("region", { name: "Table of all images" }));
  const first = () => table.getAllByRole("row")[1]?.textContent;
  await screen.findByText("2 images answered");
  await user.click(table.getByRole("button", { name: "probability" }));
  expect(first()).toContain("c.png");
  await user.click(table.getByRole("button", { name: /probability/ }));
  expect(first()).toContain("a.png");
  expect(table.getByRole("columnheader", { name: /probability/ }).ariaSort).toBe("descending");
});

test("an image unlike those of the training is flagged", async () => {
  await withImages("c.png");
  expect(await screen.findByText("Unlike the others.")).toBeTruthy();
});

test("a model's card can run nothing", async () => {
  const user = userEvent.setup();
  const { container } = render(<App />);
  await user.click(await screen.findByText("Model card"));
  expect(await screen.findByRole("heading", { name: "Card" })).toBeTruthy();
  expect(container.querySelector("script, .card img")).toBeNull();
});

test("a server with a token asks for it, and says where it was wrong", async () => {
  locked = true;
  const user = userEvent.setup();
  render(<App />);
  await user.type(await screen.findByLabelText("Token"), "wrong{Enter}");
  await screen.findByText("The server refused that token.");
  await user.clear(screen.getByLabelText("Token"));
  await user.type(screen.getByLabelText("Token"), "right{Enter}");
  expect(await screen.findByText("Drop an image to begin")).toBeTruthy();
});

test("once another version answers, it is the one that is told of", async () => {
  const user = await withImages("a.png");
  await screen.findByText("Answered by leukemia, version 3.");
  version = 4;
  await user.upload(
    screen.getByLabelText("Image files"),
    new File(["d"], "d.png", { type: "image/png" }),
  );
  expect(await screen.findByText("version 4, champion")).toBeTruthy();
});
