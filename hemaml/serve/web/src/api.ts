// The server's JSON, and the five questions that the page asks. Definitions: hemaml/serve/answers.py.

export type Kind = "classification" | "segmentation";
export type Part = "held out" | "validation";
export type Point = [number, number];

export interface Score {
  value: number;
  low: number | null;
  high: number | null;
  part: Part;
}

export interface Health {
  status: "ok" | "degraded";
  version: string;
  token_required: boolean;
  limits: { bytes: number; pixels: number; images: number; requests_per_minute: number };
  models: { name: string; version: number; problem: string | null }[];
  registry: { reachable: boolean; seconds_since: number; problem: string | null };
}

export interface ModelFacts {
  name: string;
  version: number;
  uri: string;
  alias: string | null;
  task: string;
  kind: Kind;
  objective: string;
  data: string;
  classes: string[];
  metrics: Record<string, Score>;
  split: { kind: string; leaky: boolean; text: string };
  card: string;
  explains: "grad_cam" | "contours" | "neighbours" | null;
  novelty: boolean;
  calibration: { ece: number; part: Part } | null;
}

export interface Answering {
  name: string;
  version: number;
  uri: string;
}

export interface Segmentation {
  areas: Record<string, number>;
  fractions: Record<string, number>;
  nucleus_cytoplasm_ratio: number | null;
  contours: Record<string, Point[][]>;
}

export interface Result {
  index: number;
  name: string;
  width: number;
  height: number;
  label: string | null;
  probabilities: Record<string, number> | null;
  segmentation: Segmentation | null;
  novelty: { distance: number; percentile: number; unlike: boolean; text: string } | null;
}

export interface Prediction {
  model: Answering;
  results: Result[];
}

export interface Neighbour {
  label: string;
  similarity: number;
  weight: number;
  name: string;
  picture: string | null;
}

export type Why =
  | { kind: "grad_cam"; target: string; method: string; layer: string; heat: string; shown: number }
  | { kind: "neighbours"; k: number; neighbours: Neighbour[] };

export interface Sample {
  name: string;
  url: string;
  text: string;
}

/** Why a request got no answer (RFC 9457). */
export interface Problem {
  title: string;
  status: number;
  detail: string;
  rule: string;
  value: string | null;
  action: string | null;
}

export class Refused extends Error {
  /** @param retryAfter Seconds after which the server asks to be asked again. */
  constructor(
    readonly problem: Problem,
    readonly retryAfter: number | null = null,
  ) {
    super(problem.detail);
  }
}

export interface Ask {
  token: string | null;
  signal?: AbortSignal;
  /** Is told the seconds that are left to wait for a busy server; 0 when it is asked again. */
  waiting?: (seconds: number) => void;
}

const API = "/api/v1";
const PATIENCE = 6; // times that a busy server is asked again

export const health = () => answered<Health>("/health", {}, { token: null });
export const models = (ask: Ask) =>
  answered<{ models: ModelFacts[] }>("/models", {}, ask).then((found) => found.models);
export const samples = (ask: Ask) =>
  answered<{ samples: Sample[] }>("/samples", {}, ask).then((found) => found.samples);

export async function sampleFile(sample: Sample, ask: Ask): Promise<File> {
  const response = await sent(sample.url, {}, ask);
  const picture = await heard(response.blob(), CUT);
  return new File([picture], `${sample.name}.png`, { type: "image/png" });
}

export function predict(files: File[], model: string, ask: Ask): Promise<Prediction> {
  const body = new FormData();
  body.set("model", model);
  for (const file of files) body.append("images", file);
  return answered("/predict", { method: "POST", body }, ask);
}

export function explain(
  file: File,
  model: string,
  how: { target?: string; method?: string },
  ask: Ask,
): Promise<{ model: Answering; result: Result; explanation: Why }> {
  const body = new FormData();
  body.set("model", model);
  body.set("image", file);
  for (const [name, value] of Object.entries(how)) if (value) body.set(name, value);
  return answered("/explain", { method: "POST", body }, ask);
}

async function answered<T>(path: string, init: RequestInit, ask: Ask): Promise<T> {
  for (let times = 0; ; times += 1) {
    try {
      const response = await sent(API + path, init, ask);
      return (await heard(response.json(), CUT)) as T;
    } catch (error) {
      if (!(error instanceof Refused) || error.retryAfter === null || times === PATIENCE)
        throw error;
      await waited(error.retryAfter, ask);
    }
  }
}

async function sent(url: string, init: RequestInit, ask: Ask): Promise<Response> {
  const headers = new Headers();
  if (ask.token) headers.set("Authorization", `Bearer ${ask.token}`);
  const answer = fetch(url, { ...init, headers, signal: ask.signal ?? null });
  const response = await heard(answer, SILENT);
  if (response.ok) return response;
  const seconds = Number(response.headers.get("Retry-After"));
  const busy = response.status === 503 || response.status === 429;
  throw new Refused(await problemOf(response), busy && seconds > 0 ? seconds : null);
}

/** What was awaited; where that fails, and was not stopped, the problem says why. */
async function heard<T>(awaited: Promise<T>, problem: Problem): Promise<T> {
  try {
    return await awaited;
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Refused(problem);
  }
}

/** A proxy before the server may refuse as well, in words of its own. */
async function problemOf(response: Response): Promise<Problem> {
  const { status } = response;
  const found: unknown = await response.json().catch(() => null);
  if (isProblem(found)) return { ...found, status };
  const detail = `the server answered ${status} ${response.statusText}`.trim();
  return { ...SILENT, status, detail, rule: detail, value: null };
}

function isProblem(found: unknown): found is Problem {
  const { title, detail, rule, value, action } = Object(found);
  const texts = [title, detail, rule, value ?? "", action ?? ""];
  return texts.every((text) => typeof text === "string");
}

async function waited(seconds: number, ask: Ask): Promise<void> {
  for (let left = Math.ceil(seconds); left > 0; left -= 1) {
    ask.waiting?.(left);
    await new Promise<void>((resolve) => setTimeout(resolve, 1000));
    ask.signal?.throwIfAborted();
  }
  ask.waiting?.(0);
}

const SILENT: Problem = {
  title: "No answer",
  status: 0,
  detail: "the server must answer, but it cannot be reached",
  rule: "the server must answer",
  value: "it cannot be reached",
  action: "See whether `hemaml serve` is running, then try again.",
};

const CUT: Problem = {
  ...SILENT,
  detail: "the server must answer, but its answer is cut off or unreadable",
  value: "its answer is cut off or unreadable",
};
