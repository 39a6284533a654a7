import { cleanup, render, screen } from "@testing-library/react";
import { afterEach, expect, test } from "vitest";
import type { Result } from "../api";
import type { Item } from "../state";
import { Viewer } from "./viewer";

afterEach(cleanup);

test("an outline's whole numbers are the centres of the image's pixels", () => {
  const square: [number, number][] = [
    [-0.5, -0.5],
    [4.5, -0.5],
    [4.5, 3.5],
    [-0.5, 3.5],
  ]; // around all of the image
  const segmentation = { contours: { nucleus: [square] } };
  const result = { width: 5, height: 4, segmentation } as unknown as Result;
  const item = { file: new File([], "a.png"), url: "blob:x", result } as unknown as Item;
  render(<Viewer item={item} why={null} />);
  const outlines = screen.getByRole("img", { name: "Outlines of nucleus" });
  expect(outlines.getAttribute("viewBox")).toBe("-0.5 -0.5 5 4");
});
