import DOMPurify from "dompurify";
import { marked } from "marked";
import { useMemo } from "react";

/** Markdown of the registry, with nothing in it that runs, loads or carries a style. */
export default function Markdown({ text }: { text: string }) {
  const html = useMemo(() => {
    const made = marked.parse(text, { async: false, gfm: true });
    return DOMPurify.sanitize(made, {
      FORBID_TAGS: ["img", "style", "form"],
      FORBID_ATTR: ["style"],
    });
  }, [text]);
  return (
    <section
      className="card"
      aria-label="Text of the model card"
      // biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls, so a keyboard must reach it
      tabIndex={0}
      // biome-ignore lint/security/noDangerouslySetInnerHtml: sanitised above
      dangerouslySetInnerHTML={{ __html: html }}
    />
  );
}
