import { useCallback, useRef, useState } from "react";
import type { Answering } from "./api";
import { Header } from "./components/header";
import { Images } from "./components/images";
import { ModelCard } from "./components/model-card";
import { ProblemNote } from "./components/problem-note";
import { ResultView } from "./components/result-view";
import { Table } from "./components/table";
import { TokenPrompt } from "./components/token-prompt";
import { useImages, useServer, useTheme, useToken } from "./hooks";

export function App() {
  const [theme, setTheme] = useTheme();
  const [token, setToken] = useToken();
  const server = useServer(token);
  const [wanted, setWanted] = useState<string | null>(null);
  const model = server.models?.find((one) => one.name === wanted) ?? server.models?.[0] ?? null;
  // An answer by another version than is told of here: the alias has moved.
  const seen = useRef(model);
  seen.current = model;
  const { reload } = server;
  const onAnswer = useCallback(
    (by: Answering) => {
      if (by.name === seen.current?.name && by.uri !== seen.current.uri) reload();
    },
    [reload],
  );
  const images = useImages(model?.name ?? null, token, server, onAnswer);
  const chosen = images.page.items.find((item) => item.id === images.page.chosen) ?? null;
  const locked = server.health?.token_required && (!token || server.problem?.status === 401);

  return (
    <>
      <Header
        models={server.models ?? []}
        model={model}
        health={server.health}
        onModel={setWanted}
        theme={theme}
        onTheme={setTheme}
      />
      <main>
        {locked && <TokenPrompt refused={server.problem?.status === 401} onToken={setToken} />}
        {server.problem && server.problem.status !== 401 && (
          <ProblemNote problem={server.problem} onAgain={server.reload} />
        )}
        {server.models?.length === 0 && <NoModels onAgain={server.reload} />}
        {model && (
          <>
            <div className="desk">
              <Images
                page={images.page}
                dispatch={images.dispatch}
                samples={server.samples}
                limits={server.health?.limits ?? null}
                waiting={images.waiting}
                token={token}
              />
              {chosen ? (
                <ResultView
                  key={`${chosen.id} ${model.uri}`}
                  item={chosen}
                  model={model}
                  token={token}
                  dispatch={images.dispatch}
                />
              ) : (
                <Welcome />
              )}
            </div>
            {images.page.items.length > 1 && (
              <Table
                items={images.page.items}
                chosen={images.page.chosen}
                onChoose={(id) => images.dispatch({ type: "chosen", id })}
              />
            )}
            <ModelCard model={model} />
          </>
        )}
      </main>
    </>
  );
}

function Welcome() {
  return (
    <section className="welcome" aria-label="How to begin">
      <h2>Drop an image to begin</h2>
      <p>
        One or many PNG, JPEG, BMP or TIFF files of single cells or smears, as the model was trained
        on. Images are answered and forgotten: the server keeps none of them.
      </p>
    </section>
  );
}

function NoModels({ onAgain }: { onAgain: () => void }) {
  const problem = {
    title: "No champion",
    status: 404,
    detail: "a model must be a champion to answer, but the registry has none",
    rule: "a model must be a champion to answer",
    value: "the registry has none",
    action: "Promote one: hemaml promote NAME.",
  };
  return <ProblemNote problem={problem} onAgain={onAgain} />;
}
