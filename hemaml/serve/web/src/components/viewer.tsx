import { type ReactNode, useId, useState } from "react";
import type { Point, Segmentation, Why } from "../api";
import type { Item } from "../state";
import { percent } from "../words";

interface Props {
  item: Item;
  why: Why | null;
  children?: ReactNode;
}

/** The image, with what explains the answer laid over it as strongly as somebody likes. */
export function Viewer({ item, why, children }: Props) {
  const [strength, setStrength] = useState(45);
  const [broken, setBroken] = useState(false);
  const slider = useId();
  const { result } = item;
  const heat = why?.kind === "grad_cam" ? why : null;
  const segmentation = result?.segmentation ?? null;
  return (
    <figure className="viewer">
      <div className="stage">
        {broken ? (
          <p className="unseen">
            This browser cannot show the file; the answer is of it all the same.
          </p>
        ) : (
          <img
            src={item.url}
            alt={`As uploaded: ${item.file.name}`}
            onError={() => setBroken(true)}
          />
        )}
        {heat && (
          <img
            className="heat"
            src={heat.heat}
            alt={`Where the model sees ${heat.target}, by ${heat.method}`}
            style={{ opacity: strength / 100 }}
          />
        )}
        {segmentation && result && (
          <Outlines {...{ segmentation, strength }} width={result.width} height={result.height} />
        )}
      </div>
      {(heat || segmentation || children) && (
        <figcaption>
          <label htmlFor={slider}>
            <span>Overlay</span>
            <output htmlFor={slider}>{strength} %</output>
          </label>
          <input
            id={slider}
            type="range"
            min="0"
            max="100"
            value={strength}
            onChange={(event) => setStrength(event.target.valueAsNumber)}
          />
          {heat && heat.shown < 1 && (
            <p className="seen">
              The model saw {percent(heat.shown, 0)} of this image; the rest is grey.
            </p>
          )}
          {children}
        </figcaption>
      )}
    </figure>
  );
}

interface OutlineProps {
  segmentation: Segmentation;
  width: number;
  height: number;
  strength: number;
}

function Outlines({ segmentation, width, height, strength }: OutlineProps) {
  const names = Object.keys(segmentation.contours);
  return (
    <svg
      className="outlines"
      viewBox={`-0.5 -0.5 ${width} ${height}`} // corners count from the centres of pixels
      role="img"
      aria-label={`Outlines of ${names.join(" and ")}`}
    >
      {names.map((name) => {
        const path = pathOf(segmentation.contours[name] ?? []);
        return (
          <g key={name} data-class={name}>
            <path className="fill" d={path} style={{ opacity: strength / 250 }} />
            <path className="halo" d={path} />
            <path className="line" d={path} />
          </g>
        );
      })}
    </svg>
  );
}

const pathOf = (polygons: Point[][]) =>
  polygons.map((points) => `M${points.map(([x, y]) => `${x} ${y}`).join("L")}Z`).join("");
