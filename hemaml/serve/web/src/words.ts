// What numbers mean, in words; and a batch as CSV. Pure functions.

import type { ModelFacts, Result, Score } from "./api";

export const NOTICE = "For research, not for diagnosis.";

export const percent = (share: number, digits = 1) => `${(100 * share).toFixed(digits)} %`;

export function bytes(count: number): string {
  const mib = count / (1 << 20);
  return mib >= 1 ? `${mib.toFixed(mib < 10 ? 1 : 0)} MiB` : `${Math.ceil(count / 1024)} KiB`;
}

/** ".953 (.921 to .977)": without a zero that says nothing. */
export function score({ value, low, high }: Score): string {
  const interval = low === null || high === null ? "" : ` (${bare(low)} to ${bare(high)})`;
  return bare(value) + interval;
}

const bare = (value: number) =>
  Math.abs(value) < 1 ? value.toFixed(3).replace("0.", ".") : value.toFixed(3);

/** Classes, the most probable first. */
export function ranked(probabilities: Record<string, number>): [string, number][] {
  return Object.entries(probabilities).sort(([, a], [, b]) => b - a);
}

/** How decided an answer is, which is no promise that it is right. */
export function decidedness(probabilities: Record<string, number>): string {
  const [first, second] = ranked(probabilities);
  if (!first) return "";
  if (!second || first[1] >= 0.9) return "a clear answer";
  return first[1] - second[1] < 0.2
    ? `torn between ${first[0]} and ${second[0]}`
    : `leaning to ${first[0]}`;
}

/** What the probabilities were worth on images with known labels. */
export function calibration(model: ModelFacts): string {
  if (!model.calibration) return "How far its probabilities can be believed was not measured.";
  const { ece, part } = model.calibration;
  const where = part === "held out" ? "held-out images" : "validation images";
  return `On ${where} its probabilities were ${percent(ece)} off the true frequencies on average.`;
}

/** A title for a registered name. */
export const title = (name: string) => name.replaceAll("_", " ").replaceAll("-", " · ");

/** What an answer comes down to, in a few characters. */
export function verdict(result: Result): string {
  if (result.label !== null) return result.label;
  const ratio = result.segmentation?.nucleus_cytoplasm_ratio;
  return ratio == null ? "–" : `N/C ${ratio.toFixed(2)}`;
}

/** The probability of the label; null where there is none. */
export function confidence(result: Result): number | null {
  return result.label === null ? null : (result.probabilities?.[result.label] ?? null);
}

export interface Row {
  file: string;
  model: string;
  result: Result | null;
  /** Why there is no result. */
  refused: string | null;
}

/** One line an image. A spreadsheet must not take a file's name for a formula. */
export function csv(rows: Row[]): string {
  const probable = union(rows, (r) => Object.keys(r.probabilities ?? {}));
  const areas = union(rows, (r) => Object.keys(r.segmentation?.areas ?? {}));
  const head = [
    ...["image", "model", "width", "height", "label"],
    ...probable.map((name) => `p(${name})`),
    ...areas.map((name) => `pixels(${name})`),
    ...["nucleus/cytoplasm", "unlike training images", "refused", "notice"],
  ];
  const lines = rows.map(({ file, model, result, refused }) => [
    ...[file, model, result?.width, result?.height, result?.label],
    ...probable.map((name) => result?.probabilities?.[name]),
    ...areas.map((name) => result?.segmentation?.areas[name]),
    result?.segmentation?.nucleus_cytoplasm_ratio,
    result?.novelty?.unlike,
    refused,
    NOTICE,
  ]);
  return [head, ...lines].map((line) => `${line.map(cell).join(",")}\r\n`).join("");
}

function union(rows: Row[], names: (result: Result) => string[]): string[] {
  return [...new Set(rows.flatMap(({ result }) => (result ? names(result) : [])))];
}

function cell(value: string | number | boolean | null | undefined): string {
  if (typeof value === "number") return String(value);
  const text = String(value ?? "");
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
