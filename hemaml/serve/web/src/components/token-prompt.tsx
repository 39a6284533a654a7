import { useState } from "react";

interface Props {
  refused: boolean;
  onToken: (token: string) => void;
}

/** Asks for the server's token. */
export function TokenPrompt({ refused, onToken }: Props) {
  const [token, setToken] = useState("");
  return (
    <form
      className="token"
      onSubmit={(event) => {
        event.preventDefault();
        onToken(token.trim());
      }}
    >
      <h2>This server asks for a token</h2>
      <p>Whoever runs it can give you one. It is forgotten when this tab is closed.</p>
      <label>
        <span>Token</span>
        <input
          type="password"
          autoComplete="off"
          required
          value={token}
          onChange={(event) => setToken(event.target.value)}
        />
      </label>
      <button type="submit">Use it</button>
      {refused && <p role="alert">The server refused that token.</p>}
    </form>
  );
}
