import type { Problem } from "../api";

interface Props {
  problem: Problem;
  onAgain?: () => void;
}

/** Why there is no answer: the rule, what was found instead, what to do. */
export function ProblemNote({ problem, onAgain }: Props) {
  return (
    <div className="problem" role="alert">
      <h3>{problem.title}</h3>
      <p>
        {sentence(problem.rule)}
        {problem.value && <span className="found"> But: {sentence(problem.value)}</span>}
      </p>
      {problem.action && <p className="action">{problem.action}</p>}
      {onAgain && (
        <button type="button" onClick={onAgain}>
          Try again
        </button>
      )}
    </div>
  );
}

function sentence(text: string): string {
  const trimmed = text.trim();
  return trimmed.charAt(0).toUpperCase() + trimmed.slice(1) + (/[.!?]$/.test(trimmed) ? "" : ".");
}
