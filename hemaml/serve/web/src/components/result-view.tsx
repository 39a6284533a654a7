import { useCallback, useEffect, useState } from "react";
import { explain, type ModelFacts, type Problem, Refused, type Why } from "../api";
import type { Action, Item } from "../state";
import { title } from "../words";
import { Neighbours } from "./neighbours";
import { ProblemNote } from "./problem-note";
import { Regions } from "./regions";
import { Verdict } from "./verdict";
import { Viewer } from "./viewer";

interface Props {
  item: Item;
  model: ModelFacts;
  token: string | null;
  dispatch: (action: Action) => void;
}

/** What the model says of the chosen image, and why. */
export function ResultView({ item, model, token, dispatch }: Props) {
  const [target, setTarget] = useState("");
  const [method, setMethod] = useState("gradcam++");
  const again = useCallback(() => dispatch({ type: "again", ids: [item.id] }), [dispatch, item.id]);
  const { why, problem } = useWhy(item, model, target, method, token, again);
  if (item.state === "failed" && item.problem)
    return (
      <section className="result" aria-label={`Result of ${item.file.name}`}>
        <h2 className="file">{item.file.name}</h2>
        <ProblemNote problem={item.problem} onAgain={again} />
      </section>
    );
  const { result, by } = item;
  const current = by?.uri === model.uri;
  return (
    <section className="result" aria-label={`Result of ${item.file.name}`}>
      <h2 className="file">
        {item.file.name}
        {result && <small>{`${result.width} × ${result.height} pixels`}</small>}
      </h2>
      <div className="both">
        <Viewer item={item} why={why}>
          {model.explains === "grad_cam" && result && (
            <HeatControls
              {...{ model, target, method }}
              label={result.label}
              onTarget={setTarget}
              onMethod={setMethod}
            />
          )}
        </Viewer>
        {result ? (
          <div className="said">
            {result.segmentation && <Regions segmentation={result.segmentation} />}
            <Verdict result={result} model={current ? model : null} />
            {by && <p className="by">{`Answered by ${title(by.name)}, version ${by.version}.`}</p>}
            {!current && (
              <p className="by">
                {`What this page tells of the model is of version ${model.version}. `}
                <button type="button" className="link" onClick={again}>
                  Ask again
                </button>
              </p>
            )}
          </div>
        ) : (
          <p className="pending">Asking {title(model.name)}…</p>
        )}
      </div>
      {problem && <ProblemNote problem={problem} onAgain={again} />}
      {why?.kind === "neighbours" && <Neighbours neighbours={why.neighbours} />}
    </section>
  );
}

/** The explanation of an image, asked for once it has its answer; contours come with that. */
function useWhy(
  item: Item,
  model: ModelFacts,
  target: string,
  method: string,
  token: string | null,
  again: () => void,
) {
  const [why, setWhy] = useState<Why | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const asked = item.state === "done" && model.explains !== null && model.explains !== "contours";
  const grad = model.explains === "grad_cam";
  const by = item.by?.uri;
  useEffect(() => {
    setWhy(null); // what explained another class or answer
    setProblem(null);
    if (!asked) return;
    const stop = new AbortController();
    const how = grad ? { target, method } : {};
    explain(item.file, model.name, how, { token, signal: stop.signal })
      .then((found) => {
        if (found.model.uri === by) setWhy(found.explanation);
        else again(); // another version answers by now, and explains its own answers alone
      })
      .catch((error: unknown) => {
        if (stop.signal.aborted) return;
        if (!(error instanceof Refused)) throw error;
        setProblem(error.problem);
      });
    return () => stop.abort();
  }, [asked, grad, by, item.file, model.name, target, method, token, again]);
  return { why, problem };
}

const METHODS = {
  "gradcam++": "Grad-CAM++",
  gradcam: "Grad-CAM",
  layercam: "LayerCAM",
  eigencam: "EigenCAM",
};

interface HeatProps {
  model: ModelFacts;
  label: string | null;
  target: string;
  method: string;
  onTarget: (target: string) => void;
  onMethod: (method: string) => void;
}

function HeatControls({ model, label, target, method, onTarget, onMethod }: HeatProps) {
  return (
    <>
      <label>
        <span>Heat for</span>
        <select value={target || (label ?? "")} onChange={(event) => onTarget(event.target.value)}>
          {model.classes.map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
      </label>
      <label>
        <span>Method</span>
        <select value={method} onChange={(event) => onMethod(event.target.value)}>
          {Object.entries(METHODS).map(([name, shown]) => (
            <option key={name} value={name}>
              {shown}
            </option>
          ))}
        </select>
      </label>
    </>
  );
}
