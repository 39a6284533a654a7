import { useCallback, useEffect, useReducer, useRef, useState } from "react";
import * as api from "./api";
import { batch, EMPTY, type Item, type Page, reduce } from "./state";

const BAD_FILE = 422;
const BAD_TOKEN = 401;

export type Theme = "auto" | "light" | "dark";

/** The colours: the system's, or those that somebody chose here. */
export function useTheme(): [Theme, (theme: Theme) => void] {
  const [theme, setTheme] = useState<Theme>(() => (stored("theme") as Theme | null) ?? "auto");
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    store("theme", theme === "auto" ? null : theme);
  }, [theme]);
  return [theme, setTheme];
}

/** The server's token, kept for as long as the tab is open. */
export function useToken(): [string | null, (token: string | null) => void] {
  const [token, setToken] = useState<string | null>(() => stored("token", sessionStorage));
  const keep = useCallback((value: string | null) => {
    store("token", value, sessionStorage);
    setToken(value);
  }, []);
  return [token, keep];
}

export interface Server {
  health: api.Health | null;
  models: api.ModelFacts[] | null;
  samples: api.Sample[];
  problem: api.Problem | null;
  reload: () => void;
}

/** What the server has. */
export function useServer(token: string | null): Server {
  const [known, setKnown] = useState<Omit<Server, "reload">>(NOTHING);
  const [times, setTimes] = useState(0);
  // biome-ignore lint/correctness/useExhaustiveDependencies: `times` asks again
  useEffect(() => {
    let current = true;
    const take = (found: Partial<Server>) =>
      current && setKnown((before) => ({ ...before, ...found }));
    (async () => {
      try {
        const health = await api.health();
        take({ health, problem: null });
        if (health.token_required && !token) return;
        const [models, samples] = await Promise.all([
          api.models({ token }),
          api.samples({ token }),
        ]);
        take({ models, samples });
      } catch (error) {
        if (!(error instanceof api.Refused)) throw error;
        const { problem } = error;
        // A lost server leaves what it has said; a refused token asks all anew.
        take(problem.status === BAD_TOKEN ? { models: null, problem } : { problem });
      }
    })();
    return () => {
      current = false;
    };
  }, [token, times]);
  const reload = useCallback(() => setTimes((n) => n + 1), []);
  return { ...known, reload };
}

const NOTHING = { health: null, models: null, samples: [], problem: null };

/** The images, which are sent to the model as soon as they are there, some at a time. */
export function useImages(
  model: string | null,
  token: string | null,
  { health, reload }: Server,
  onAnswer: (by: api.Answering) => void,
) {
  const [page, dispatch] = useReducer(reduce, EMPTY);
  const [waiting, setWaiting] = useState(0);
  const limits = health?.limits;
  const asking = page.items.some((item) => item.state === "asking");

  // biome-ignore lint/correctness/useExhaustiveDependencies: another model answers anew
  useEffect(() => dispatch({ type: "model" }), [model]);

  useEffect(() => {
    if (!model || !limits || asking) return;
    const sending = batch(page.items, limits);
    if (!sending.length) return;
    dispatch({ type: "asked", ids: sending.map((item) => item.id), model });
    const ask = async (some: Item[]) => {
      const ids = some.map((item) => item.id);
      const files = some.map((item) => item.file);
      try {
        const found = await api.predict(files, model, { token, waiting: setWaiting });
        dispatch({ type: "answered", ids, model, results: found.results, by: found.model });
        onAnswer(found.model);
      } catch (error) {
        if (!(error instanceof api.Refused)) throw error;
        const { problem } = error;
        // One bad file refuses all of a request: each is then asked for alone.
        if (some.length > 1 && problem.status === BAD_FILE)
          for (const one of some) await ask([one]);
        else dispatch({ type: "failed", ids, model, problem });
        if (problem.status === BAD_TOKEN) reload(); // what locks the page is the server's state
      }
    };
    ask(sending);
  }, [page.items, model, limits, token, asking, onAnswer, reload]);

  useFreedUrls(page);
  return { page, dispatch, waiting, asking };
}

/** Pictures of images that have left the page are let go. */
function useFreedUrls(page: Page) {
  const known = useRef(new Set<string>());
  useEffect(() => {
    const now = new Set(page.items.map((item) => item.url));
    for (const url of known.current) if (!now.has(url)) URL.revokeObjectURL(url);
    known.current = now;
  }, [page.items]);
}

// Storage is refused where a browser says so; the page then forgets.
function stored(key: string, where: Storage = localStorage): string | null {
  try {
    return where.getItem(`hemaml.${key}`);
  } catch {
    return null;
  }
}

function store(key: string, value: string | null, where: Storage = localStorage) {
  try {
    if (value === null) where.removeItem(`hemaml.${key}`);
    else where.setItem(`hemaml.${key}`, value);
  } catch {
    // see above
  }
}
