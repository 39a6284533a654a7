import type { Health, ModelFacts } from "../api";
import type { Theme } from "../hooks";
import mark from "../mark.svg";
import { NOTICE, title } from "../words";

interface Props {
  models: ModelFacts[];
  model: ModelFacts | null;
  health: Health | null;
  onModel: (name: string) => void;
  theme: Theme;
  onTheme: (theme: Theme) => void;
}

export function Header({ models, model, health, onModel, theme, onTheme }: Props) {
  return (
    <header className="top">
      <div className="bar">
        <h1 className="brand">
          <img src={mark} alt="" width="28" height="28" />
          hemaml
        </h1>
        {model && (
          <label className="picker">
            <span>Model</span>
            <select value={model.name} onChange={(event) => onModel(event.target.value)}>
              {tasks(models).map(([task, ofTask]) => (
                <optgroup key={task} label={title(task)}>
                  {ofTask.map((one) => (
                    <option key={one.name} value={one.name}>
                      {title(one.name)} · version {one.version}
                    </option>
                  ))}
                </optgroup>
              ))}
            </select>
          </label>
        )}
        <label className="picker">
          <span>Colours</span>
          <select value={theme} onChange={(event) => onTheme(event.target.value as Theme)}>
            <option value="auto">as the system</option>
            <option value="light">light</option>
            <option value="dark">dark</option>
          </select>
        </label>
      </div>
      <p className="notice">
        <strong>{NOTICE}</strong> {stale(health)}
      </p>
    </header>
  );
}

function tasks(models: ModelFacts[]): [string, ModelFacts[]][] {
  const names = [...new Set(models.map((model) => model.task))];
  return names.map((task) => [task, models.filter((model) => model.task === task)]);
}

/** What keeps the models from being up to date. */
function stale(health: Health | null): string {
  if (!health || health.status === "ok") return "";
  if (!health.registry.reachable)
    return "The registry cannot be reached: models may be out of date.";
  const behind = health.models.filter((model) => model.problem).map((model) => title(model.name));
  return `A newer version could not be loaded: ${behind.join(", ")}.`;
}
