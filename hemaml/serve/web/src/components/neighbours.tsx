import type { Neighbour } from "../api";

/** The training images that the answer rests on, those that matter most first. */
export function Neighbours({ neighbours }: { neighbours: Neighbour[] }) {
  return (
    <section className="neighbours" aria-label="Nearest training images">
      <h3>Nearest training images</h3>
      <ol>
        {neighbours.map((one) => (
          <li key={one.name}>
            {one.picture ? <img src={one.picture} alt="" /> : <span className="no-picture" />}
            <strong>{one.label}</strong>
            <span>similarity {one.similarity.toFixed(2)}</span>
            <span>weight {one.weight.toFixed(2)}</span>
            <span className="name" title={one.name}>
              {one.name}
            </span>
          </li>
        ))}
      </ol>
    </section>
  );
}
