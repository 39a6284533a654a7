import type { ModelFacts, Result } from "../api";
import { calibration, decidedness, percent, ranked, score } from "../words";

interface Props {
  result: Result;
  /** Null where another version answered: what is known of this one says nothing of that. */
  model: ModelFacts | null;
}

/** The answer, how decided it is, and what such answers were worth. */
export function Verdict({ result, model }: Props) {
  const { label, probabilities, novelty } = result;
  return (
    <>
      {novelty?.unlike && (
        <div className="unlike" role="note">
          {novelty.text}
        </div>
      )}
      {label !== null && probabilities && (
        <>
          <p className="label">
            {label}
            <small>{decidedness(probabilities)}</small>
          </p>
          <Bars probabilities={probabilities} />
          {model && <p className="worth">{calibration(model)}</p>}
        </>
      )}
      <p className="worth">
        {model && headline(model)}
        {novelty && !novelty.unlike && ` ${novelty.text}`}
      </p>
      {model?.split.leaky && (
        <p className="leaky" role="note">
          Measured on a split that may have images of one patient on both sides: expect less.
        </p>
      )}
    </>
  );
}

function Bars({ probabilities }: { probabilities: Record<string, number> }) {
  return (
    <dl className="bars">
      {ranked(probabilities).map(([name, share]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>
            <span className="meter" aria-hidden="true">
              <span style={{ inlineSize: `${100 * share}%` }} />
            </span>
            {percent(share)}
          </dd>
        </div>
      ))}
    </dl>
  );
}

const FIRST = ["dice", "accuracy"];

/** The score that people know, with the part it was measured on. */
function headline(model: ModelFacts): string {
  const name = FIRST.find((one) => one in model.metrics);
  const value = name && model.metrics[name];
  if (!value) return "How well this model does is told below.";
  return `The model's ${name}: ${score(value)}, ${value.part}.`;
}
