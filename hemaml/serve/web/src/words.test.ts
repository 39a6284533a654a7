import { expect, test } from "vitest";
import type { ModelFacts, Result } from "./api";
import { bytes, calibration, confidence, csv, decidedness, NOTICE, score, verdict } from "./words";

const result: Result = {
  index: 0,
  name: "a.png",
  width: 4,
  height: 3,
  label: "ALL",
  probabilities: { ALL: 0.75, healthy: 0.25 },
  segmentation: null,
  novelty: null,
};
const segmented: Result = {
  ...result,
  label: null,
  probabilities: null,
  segmentation: {
    areas: { background: 8, nucleus: 4 },
    fractions: { background: 2 / 3, nucleus: 1 / 3 },
    nucleus_cytoplasm_ratio: 1.5,
    contours: {},
  },
};
const model = { calibration: { ece: 0.042, part: "held out" } } as ModelFacts;

test("scores drop the zero that says nothing, and tell their interval where it is known", () => {
  expect(score({ value: 0.9531, low: 0.92, high: 1, part: "held out" })).toBe(
    ".953 (.920 to 1.000)",
  );
  expect(score({ value: -0.25, low: null, high: null, part: "validation" })).toBe("-.250");
});

test("an answer is told with how decided it is", () => {
  expect(decidedness({ a: 0.95, b: 0.05 })).toBe("a clear answer");
  expect(decidedness({ a: 0.4, b: 0.55, c: 0.05 })).toBe("torn between b and a");
  expect(decidedness({ a: 0.2, b: 0.8 })).toBe("leaning to b");
});

test("what was not measured is said", () => {
  expect(calibration(model)).toContain("On held-out images its probabilities were 4.2 % off");
  expect(calibration({ ...model, calibration: null })).toContain("was not measured");
});

test("a segmentation's answer is its ratio, which has no probability", () => {
  expect([verdict(result), confidence(result)]).toEqual(["ALL", 0.75]);
  expect([verdict(segmented), confidence(segmented)]).toEqual(["N/C 1.50", null]);
});

test("a table has a column for all that any image has", () => {
  const rows = [result, segmented].map((found) => ({
    file: "a.png",
    model: "models:/m/1",
    result: found,
    refused: null,
  }));
  const [head, first, second, last] = csv(rows).split("\r\n");
  expect(head).toBe(
    "image,model,width,height,label,p(ALL),p(healthy),pixels(background),pixels(nucleus)," +
      "nucleus/cytoplasm,unlike training images,refused,notice",
  );
  expect(first).toBe(`a.png,models:/m/1,4,3,ALL,0.75,0.25,,,,,,"${NOTICE}"`);
  expect(second).toBe(`a.png,models:/m/1,4,3,,,,8,4,1.5,,,"${NOTICE}"`);
  expect(last).toBe("");
});

test("a refused image is a row that says why", () => {
  const refused = { file: "b.png", model: "", result: null, refused: "it is cut, and too large" };
  const lines = csv([{ file: "a.png", model: "m", result, refused: null }, refused]).split("\r\n");
  expect(lines[2]).toBe(`b.png,,,,,,,,,"it is cut, and too large","${NOTICE}"`);
});

test.each(["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])(
  "%j as a name is no formula",
  (file) => {
    expect(csv([{ file, model: "m", result, refused: null }])).toContain(`'${file}`);
  },
);

test("quotes and lines in a name stay in their cell", () => {
  expect(csv([{ file: 'a "b",\nc', model: "m", result, refused: null }])).toContain(
    '\r\n"a ""b"",\nc",m,',
  );
});

test("sizes are told in their unit", () => {
  expect([bytes(100), bytes(1.5 * 2 ** 20), bytes(32 * 2 ** 20)]).toEqual([
    "1 KiB",
    "1.5 MiB",
    "32 MiB",
  ]);
});
