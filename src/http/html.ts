/** How pages of the server look. Each is one file that brings everything along and lets nothing else in. */
import { createHash } from "node:crypto";

const style = `
  :root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; --line: color-mix(in srgb, currentcolor 25%, transparent); }
  main { max-width: 60rem; margin: 0 auto; padding: 1rem; }
  .narrow { max-width: 34rem; padding-top: 10vh; }
  .scroll { overflow-x: auto; }
  table { border-collapse: collapse; width: 100%; }
  th, td { padding: 0.25rem 0.75rem; text-align: right; border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; }
  th:first-child { text-align: left; }
  pre { overflow-x: auto; padding: 0.75rem; border: 1px solid var(--line); }
  label { display: block; font-weight: 600; }
  input { box-sizing: border-box; width: 100%; padding: 0.5rem; font: 1rem ui-monospace, monospace; border: 1px solid var(--line); border-radius: 0.25rem; }
  .next { display: flex; flex-wrap: wrap; gap: 0.5rem 1.25rem; align-items: center; margin: 1.25rem 0; }
  .button { padding: 0.5rem 1rem; font: inherit; font-weight: 600; text-decoration: none; cursor: pointer; color: #fff; background: #1d4ed8; border: 1px solid #1d4ed8; border-radius: 0.25rem; }
  .button:disabled { opacity: 0.6; cursor: default; }
  .small { font-size: 0.875rem; border-top: 1px solid var(--line); padding-top: 0.75rem; overflow-wrap: anywhere; opacity: 0.8; }`;

const hash = (text: string): string => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;

/** What others wrote, as text in a page. */
export const escaped = (text: string): string =>
  text.replaceAll(
    /[&<>"']/g,
    (sign) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" })[sign] as string,
  );

export interface Page {
  readonly html: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** `main`: HTML, with whatever others wrote `escaped`. `script` may ask this server, and nobody else. */
export function pageOf(title: string, main: string, script?: string): Page {
  const html = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escaped(title)}</title>
<style>${style}</style>
</head>
<body>
${main}${script === undefined ? "" : `\n<script>${script}</script>`}
</body>
</html>
`;
  const policy = [
    "default-src 'none'",
    `style-src ${hash(style)}`,
    ...(script === undefined ? [] : [`script-src ${hash(script)}`, "connect-src 'self'"]),
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ];
  return {
    html,
    headers: {
      "Content-Type": "text/html; charset=utf-8",
      "Content-Security-Policy": policy.join("; "),
      "X-Content-Type-Options": "nosniff",
      "Referrer-Policy": "no-referrer",
    },
  };
}
