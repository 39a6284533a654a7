import { useState } from "react";
import type { Item } from "../state";
import { confidence, csv, percent, verdict } from "../words";

interface Props {
  items: Item[];
  chosen: number | null;
  onChoose: (id: number) => void;
}

interface Column {
  name: string;
  text: (item: Item) => string;
  /** What rows are ordered by. */
  key: (item: Item) => string | number;
  number?: boolean;
  /** Whether there is anything to show; always where not given. */
  of?: (item: Item) => boolean;
}

const COLUMNS: Column[] = [
  { name: "image", text: (item) => item.file.name, key: (item) => item.file.name },
  { name: "answer", text: answer, key: answer },
  {
    name: "probability",
    number: true,
    of: (item) => item.result?.probabilities != null,
    text: (item) => {
      const share = item.result && confidence(item.result);
      return share === null ? "–" : percent(share);
    },
    key: (item) => (item.result && confidence(item.result)) ?? -1,
  },
  {
    name: "unlike training",
    of: (item) => item.result?.novelty != null,
    text: (item) => (item.result?.novelty ? (item.result.novelty.unlike ? "unlike" : "no") : "–"),
    key: (item) => item.result?.novelty?.percentile ?? -1,
  },
];

/** All images, in an order that somebody chooses, and as a file for a spreadsheet. */
export function Table({ items, chosen, onChoose }: Props) {
  const [order, setOrder] = useState<{ name: string; down: boolean } | null>(null);
  const columns = COLUMNS.filter(({ of }) => !of || items.some(of));
  const column = columns.find((one) => one.name === order?.name);
  const rows = column ? sorted(items, column, order?.down ?? false) : items;
  const done = items.filter((item) => item.result || item.problem);
  return (
    <section className="batch" aria-label="All images">
      <div className="head">
        <h2>All images</h2>
        <button type="button" disabled={!done.length} onClick={() => save(done)}>
          Export CSV
        </button>
      </div>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls, so a keyboard must reach it */}
      <section className="scroll" tabIndex={0} aria-label="Table of all images">
        <table>
          <thead>
            <tr>
              {columns.map(({ name }) => (
                <th key={name} scope="col" aria-sort={sortOf(name, order)}>
                  <button
                    type="button"
                    onClick={() => setOrder({ name, down: order?.name === name && !order.down })}
                  >
                    {name}
                    <span aria-hidden="true">{arrow(name, order)}</span>
                  </button>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map((item) => (
              <tr key={item.id} aria-current={item.id === chosen}>
                {columns.map(({ name, text, number }) => (
                  <td key={name} className={number ? "number" : ""}>
                    {name === "image" ? (
                      <button type="button" className="link" onClick={() => onChoose(item.id)}>
                        {text(item)}
                      </button>
                    ) : (
                      text(item)
                    )}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </section>
    </section>
  );
}

function answer(item: Item): string {
  if (item.result) return verdict(item.result);
  return item.state === "failed" ? `refused: ${item.problem?.detail ?? ""}` : "…";
}

function sorted(items: Item[], { key }: Column, down: boolean): Item[] {
  const sign = down ? -1 : 1;
  return items.toSorted((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (typeof x === "number" && typeof y === "number") return sign * (x - y);
    return sign * String(x).localeCompare(String(y), "en", { numeric: true });
  });
}

type Order = { name: string; down: boolean } | null;

const sortOf = (name: string, order: Order) =>
  order?.name !== name ? "none" : order.down ? "descending" : "ascending";
const arrow = (name: string, order: Order) =>
  order?.name !== name ? "" : order.down ? " ↓" : " ↑";

function save(items: Item[]) {
  const rows = items.map(({ file, result, by, problem }) => {
    return { file: file.name, model: by?.uri ?? "", result, refused: problem?.detail ?? null };
  });
  const url = URL.createObjectURL(new Blob([csv(rows)], { type: "text/csv" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = "hemaml.csv";
  link.click();
  URL.revokeObjectURL(url);
}
