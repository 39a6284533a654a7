import { type DragEvent, type KeyboardEvent, useRef, useState } from "react";
import { type Health, Refused, type Sample, sampleFile } from "../api";
import type { Action, Item, Page } from "../state";
import { bytes, verdict } from "../words";

interface Props {
  page: Page;
  dispatch: (action: Action) => void;
  samples: Sample[];
  limits: Health["limits"] | null;
  waiting: number;
  token: string | null;
}

/** Where images come in, and all that are there. */
export function Images({ page, dispatch, samples, limits, waiting, token }: Props) {
  const add = (files: File[]) => {
    const images = files.map((file) => ({ file, url: URL.createObjectURL(file) }));
    dispatch({ type: "added", images });
  };
  const done = page.items.filter((item) => item.state === "done" || item.state === "failed").length;
  return (
    <section className="images" aria-label="Images">
      <DropZone onFiles={add} limits={limits} />
      <Samples samples={samples} token={token} onFiles={add} />
      <p className="status" role="status">
        {progress(page.items.length, done, waiting)}
      </p>
      {page.items.length > 0 && (
        <>
          <Thumbnails page={page} dispatch={dispatch} />
          <button type="button" className="quiet" onClick={() => dispatch({ type: "cleared" })}>
            Remove all
          </button>
        </>
      )}
    </section>
  );
}

function progress(all: number, done: number, waiting: number): string {
  if (!all) return "";
  if (waiting) return `The server is busy: asked again in ${waiting} s.`;
  return done < all ? `${done} of ${all} answered` : all > 1 ? `${all} images answered` : "";
}

interface DropProps {
  onFiles: (files: File[]) => void;
  limits: Health["limits"] | null;
}

function DropZone({ onFiles, limits }: DropProps) {
  const [over, setOver] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  const drop = (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    onFiles([...event.dataTransfer.files]);
  };
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: the button in it does the same
    <div
      className={over ? "drop over" : "drop"}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={drop}
    >
      <button type="button" onClick={() => input.current?.click()}>
        Choose images
      </button>
      <p>or drop them here{limits && `, up to ${bytes(limits.bytes)} each`}</p>
      <input
        ref={input}
        type="file"
        multiple
        hidden
        accept="image/png,image/jpeg,image/bmp,image/tiff,.tif,.tiff,.bmp"
        aria-label="Image files"
        onChange={(event) => {
          onFiles([...(event.target.files ?? [])]);
          event.target.value = ""; // the same file may be chosen again
        }}
      />
    </div>
  );
}

interface SampleProps {
  samples: Sample[];
  token: string | null;
  onFiles: (files: File[]) => void;
}

function Samples({ samples, token, onFiles }: SampleProps) {
  const [failed, setFailed] = useState("");
  if (!samples.length) return null;
  const fetchAll = async () => {
    try {
      onFiles(await Promise.all(samples.map((sample) => sampleFile(sample, { token }))));
      setFailed("");
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      setFailed(error.message);
    }
  };
  return (
    <p className="samples">
      None at hand?{" "}
      <button type="button" className="link" onClick={fetchAll}>
        Take {samples.length} drawn ones
      </button>
      : generated, no real blood.
      {failed && <span role="alert"> {failed}</span>}
    </p>
  );
}

const STEPS: Record<string, number> = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

function Thumbnails({ page, dispatch }: Pick<Props, "page" | "dispatch">) {
  const move = (event: KeyboardEvent<HTMLUListElement>) => {
    const step = STEPS[event.key];
    const place = page.items.findIndex((item) => item.id === page.chosen);
    const next = step && page.items[place + step];
    if (!next) return;
    event.preventDefault();
    dispatch({ type: "chosen", id: next.id });
    event.currentTarget.querySelector<HTMLElement>(`[data-id="${next.id}"]`)?.focus();
  };
  return (
    <ul className="thumbnails" onKeyDown={move}>
      {page.items.map((item) => (
        <li key={item.id}>
          <button
            type="button"
            data-id={item.id}
            aria-current={item.id === page.chosen}
            onClick={() => dispatch({ type: "chosen", id: item.id })}
          >
            <Picture item={item} />
            <span className="name">{item.file.name}</span>
            <span className={`mark ${item.state}`}>{brief(item)}</span>
          </button>
          <button
            type="button"
            className="remove"
            aria-label={`Remove ${item.file.name}`}
            onClick={() => dispatch({ type: "removed", id: item.id })}
          >
            ×
          </button>
        </li>
      ))}
    </ul>
  );
}

/** Browsers show no TIFF: then there is a plain square. */
function Picture({ item }: { item: Item }) {
  const [broken, setBroken] = useState(false);
  return broken ? (
    <span className="no-picture" aria-hidden="true" />
  ) : (
    <img src={item.url} alt="" onError={() => setBroken(true)} />
  );
}

function brief(item: Item): string {
  if (item.state === "failed") return "refused";
  if (!item.result) return item.state === "asking" ? "asking…" : "waiting";
  return verdict(item.result) + (item.result.novelty?.unlike ? " (unlike)" : "");
}
