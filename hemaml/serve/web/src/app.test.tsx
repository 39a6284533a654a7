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

let lost = false;
let locked = false;
let token = "right";
let version = 3;
let shown = 1;
let explains: ModelFacts["explains"] = null;
let saved: Blob[] = [];

const now = () => ({ ...MODEL, version, explains, uri: `models:/leukemia/${version}` });

beforeEach(() => {
  URL.createObjectURL = (blob) => {
    saved.push(blob as Blob);
    return "blob:x";
  };
  URL.revokeObjectURL = () => {};
  sessionStorage.clear();
  vi.stubGlobal("fetch", async (url: string, init: RequestInit) => {
    const sent = (init.headers as Headers).get("Authorization");
    if (lost && !url.endsWith("/predict")) throw new TypeError("network");
    if (url.endsWith("/health"))
      return Response.json({ status: "ok", token_required: locked, limits: LIMITS, models: [] });
    if (locked && sent !== `Bearer ${token}`)
      return Response.json({ ...BROKEN, status: 401 }, { status: 401 });
    if (url.endsWith("/models")) return Response.json({ models: [now()] });
    if (url.endsWith("/samples")) return Response.json({ samples: [] });
    const form = init.body as FormData;
    if (url.endsWith("/explain")) {
      if (form.get("target") === "healthy") return Response.json(BROKEN, { status: 500 });
      const heat = `data:image/png;base64,v${version}`;
      const method = form.get("method");
      const explanation = { kind: "grad_cam", target: "ALL", method, heat, shown };
      return Response.json({ model: now(), explanation });
    }
    const files = form.getAll("images") as File[];
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
  lost = false;
  locked = false;
  token = "right";
  version = 3;
  shown = 1;
  explains = null;
  saved = [];
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

test("the file for a spreadsheet has refused images as well, with the reason", async () => {
  const user = await withImages("a.png", "b.png");
  await screen.findByText("2 images answered");
  vi.spyOn(HTMLAnchorElement.prototype, "click").mockImplementation(() => {});
  await user.click(screen.getByRole("button", { name: "Export CSV" }));
  const rows = (await saved.at(-1)?.text())?.split("\r\n");
  expect(rows?.[1]).toContain("a.png,models:/leukemia/3,");
  expect(rows?.[2]).toContain(`b.png,,,,,,,,,"${BROKEN.detail}",`);
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

test("a server whose token has changed asks for the new one", async () => {
  locked = true;
  sessionStorage.setItem("hemaml.token", "right");
  const user = userEvent.setup();
  render(<App />);
  const input = await screen.findByLabelText("Image files");
  token = "new";
  await user.upload(input, new File(["a"], "a.png", { type: "image/png" }));
  await user.type(await screen.findByLabelText("Token"), "new{Enter}");
  expect(await screen.findByText("Answered by leukemia, version 3.")).toBeTruthy();
});

test("how much of an image the model has not seen is told", async () => {
  explains = "grad_cam";
  const user = await withImages("a.png");
  await screen.findByAltText(/Where/);
  expect(screen.queryByText(/The model saw/)).toBeNull();
  shown = 0.14;
  await user.selectOptions(screen.getByLabelText("Method"), "layercam");
  expect(await screen.findByText(/The model saw 14 % of this image/)).toBeTruthy();
});

test("an answer and its explanation are of one version", async () => {
  explains = "grad_cam";
  const user = await withImages("a.png");
  const heat = await screen.findByAltText("Where the model sees ALL, by gradcam++");
  expect(heat.getAttribute("src")).toContain("v3");
  version = 4;
  await user.selectOptions(screen.getByLabelText("Method"), "layercam");
  expect(await screen.findByText("Answered by leukemia, version 4.")).toBeTruthy();
  expect((await screen.findByAltText(/Where/)).getAttribute("src")).toContain("v4");
});

test("a class whose explanation fails has no heat map, and another can be chosen", async () => {
  explains = "grad_cam";
  const user = await withImages("a.png");
  await screen.findByAltText(/Where the model sees ALL/);
  await user.selectOptions(screen.getByLabelText("Heat for"), "healthy");
  await screen.findByRole("alert");
  expect(screen.queryByAltText(/Where the model sees/)).toBeNull();
  await user.selectOptions(screen.getByLabelText("Heat for"), "ALL");
  expect(await screen.findByAltText(/Where the model sees ALL/)).toBeTruthy();
  expect(screen.queryByRole("alert")).toBeNull();
});

test("what is known of a version is not told of the answers of another", async () => {
  const user = await withImages("a.png");
  await screen.findByText("Answered by leukemia, version 3.");
  version = 4;
  const d = new File(["d"], "d.png", { type: "image/png" });
  await user.upload(screen.getByLabelText("Image files"), d);
  const again = await screen.findByRole("button", { name: "Ask again" });
  const result = within(screen.getByRole("region", { name: "Result of a.png" }));
  expect(result.getByText("Answered by leukemia, version 3.")).toBeTruthy();
  expect(result.queryByText(/accuracy|was not measured|of one patient/)).toBeNull();
  await user.click(again);
  expect(await result.findByText("Answered by leukemia, version 4.")).toBeTruthy();
  expect(result.getByText(/accuracy: .950/)).toBeTruthy();
});

test("a server that is lost as another version answers leaves what was answered", async () => {
  const user = await withImages("a.png");
  await screen.findByText("Answered by leukemia, version 3.");
  version = 4;
  lost = true;
  const d = new File(["d"], "d.png", { type: "image/png" });
  await user.upload(screen.getByLabelText("Image files"), d);
  expect((await screen.findByRole("alert")).textContent).toContain("It cannot be reached.");
  expect(screen.getByText("Answered by leukemia, version 3.")).toBeTruthy();
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
