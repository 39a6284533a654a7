import type { Segmentation } from "../api";
import { percent } from "../words";

/** Areas of what was outlined, and the nucleus against the cytoplasm. */
export function Regions({ segmentation }: { segmentation: Segmentation }) {
  const ratio = segmentation.nucleus_cytoplasm_ratio;
  return (
    <>
      <p className="label">
        {ratio === null ? "No cell outlined" : ratio.toFixed(2)}
        {ratio !== null && <small>nucleus to cytoplasm, by area</small>}
      </p>
      <table className="regions">
        <caption>Areas in the image</caption>
        <thead>
          <tr>
            <th scope="col">region</th>
            <th scope="col">pixels</th>
            <th scope="col">share</th>
          </tr>
        </thead>
        <tbody>
          {Object.entries(segmentation.areas).map(([name, area]) => (
            <tr key={name}>
              <th scope="row">
                <span className="swatch" data-class={name} aria-hidden="true" />
                {name}
              </th>
              <td>{area.toLocaleString("en")}</td>
              <td>{percent(segmentation.fractions[name] ?? 0)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </>
  );
}
