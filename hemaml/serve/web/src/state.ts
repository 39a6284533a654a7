// The images on the page and what became of each. Changed by `reduce` alone.

import type { Answering, Problem, Result } from "./api";

export interface Item {
  id: number;
  file: File;
  url: string;
  /** Which model was asked; an answer of another is not shown. */
  asked: string | null;
  state: "waiting" | "asking" | "done" | "failed";
  result: Result | null;
  by: Answering | null;
  problem: Problem | null;
}

export interface Page {
  items: Item[];
  chosen: number | null;
  nextId: number;
}

export type Action =
  | { type: "added"; images: Pick<Item, "file" | "url">[] }
  | { type: "removed"; id: number }
  | { type: "cleared" }
  | { type: "chosen"; id: number }
  | { type: "asked"; ids: number[]; model: string }
  | { type: "answered"; ids: number[]; model: string; results: Result[]; by: Answering }
  | { type: "failed"; ids: number[]; model: string; problem: Problem }
  | { type: "again"; ids: number[] }
  | { type: "model" };

export const EMPTY: Page = { items: [], chosen: null, nextId: 0 };

const FRESH = { asked: null, state: "waiting", result: null, by: null, problem: null } as const;

export function reduce(page: Page, action: Action): Page {
  switch (action.type) {
    case "added": {
      const added = action.images.map((image, i): Item => {
        return { ...FRESH, id: page.nextId + i, ...image };
      });
      return {
        items: [...page.items, ...added],
        chosen: page.chosen ?? added[0]?.id ?? null,
        nextId: page.nextId + added.length,
      };
    }
    case "removed": {
      const place = page.items.findIndex((item) => item.id === action.id);
      const items = page.items.filter((item) => item.id !== action.id);
      const near = items[Math.min(place, items.length - 1)]?.id ?? null;
      return { ...page, items, chosen: page.chosen === action.id ? near : page.chosen };
    }
    case "cleared":
      return { ...EMPTY, nextId: page.nextId };
    case "chosen":
      return { ...page, chosen: action.id };
    case "asked":
      return changed(page, action.ids, () => ({ state: "asking", asked: action.model }));
    case "answered":
      return changed(page, action.ids, (item, place) => {
        const result = action.results[place];
        if (!result || item.asked !== action.model) return {}; // another model is asked by now
        return { state: "done", result, by: action.by, problem: null };
      });
    case "failed":
      return changed(page, action.ids, (item) =>
        item.asked === action.model ? { state: "failed", problem: action.problem } : {},
      );
    case "again":
      return changed(page, action.ids, () => FRESH);
    case "model":
      return { ...page, items: page.items.map((item) => ({ ...item, ...FRESH })) };
  }
}

function changed(
  page: Page,
  ids: number[],
  how: (item: Item, place: number) => Partial<Item>,
): Page {
  const items = page.items.map((item) => {
    const place = ids.indexOf(item.id);
    return place < 0 ? item : { ...item, ...how(item, place) };
  });
  return { ...page, items };
}

/** The next images to send at once: within what the server takes in one request. */
export function batch(items: Item[], limits: { images: number; bytes: number }): Item[] {
  const chosen: Item[] = [];
  let size = 0;
  for (const item of items.filter((one) => one.state === "waiting")) {
    size += item.file.size + 1024; // the form's own lines
    if (chosen.length === limits.images || (chosen.length && size > limits.bytes)) break;
    chosen.push(item);
  }
  return chosen;
}
