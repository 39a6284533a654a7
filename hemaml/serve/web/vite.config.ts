import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

// The server's policy allows its own files alone: no inline script, no inlined picture or style.
export default defineConfig({
  plugins: [react()],
  build: { assetsInlineLimit: 0, modulePreload: { polyfill: false }, target: "es2023" },
  server: { proxy: { "/api": "http://127.0.0.1:8000" } },
  test: { environment: "jsdom", include: ["src/**/*.test.{ts,tsx}"] },
});
