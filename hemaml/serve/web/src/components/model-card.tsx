import { lazy, Suspense, useState } from "react";
import type { ModelFacts } from "../api";
import { score, title } from "../words";

const Markdown = lazy(() => import("./markdown"));

/** What is known of the model: scores with intervals, its data and split, its card. */
export function ModelCard({ model }: { model: ModelFacts }) {
  const [open, setOpen] = useState(false);
  return (
    <section className="model" aria-label="The model">
      <h2>
        {title(model.name)}
        <small>{`version ${model.version}${model.alias ? `, ${model.alias}` : ""}`}</small>
      </h2>
      <p>{`${model.objective}, trained on ${model.data}. ${model.split.text}`}</p>
      <dl className="scores">
        {Object.entries(model.metrics).map(([name, value]) => (
          <div key={name}>
            <dt>{name.replaceAll("_", " ")}</dt>
            <dd>
              {score(value)} <small>{value.part}</small>
            </dd>
          </div>
        ))}
      </dl>
      <details onToggle={(event) => setOpen(event.currentTarget.open)}>
        <summary>Model card</summary>
        {open && (
          <Suspense fallback={<p>Opening…</p>}>
            <Markdown text={model.card} />
          </Suspense>
        )}
      </details>
    </section>
  );
}
