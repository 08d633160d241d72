/** What `/` shows until there is a console: live counts, and where to look and what to type. One file, nothing from elsewhere. */
import { hash } from "node:crypto";
import { z } from "zod";
import { type Endpoints, endpoint } from "./endpoint.ts";
import { pageOf } from "./html.ts";

const script = `
  const columns = ["waiting", "delayed", "active", "completed", "failed", "total"];
  const state = document.getElementById("state");
  const say = (text) => { if (state.textContent !== text) state.textContent = text; };
  const cell = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });
  const row = (queue) => {
    const line = document.createElement("tr");
    const name = cell("th", queue.paused ? queue.name + " (paused)" : queue.name);
    name.scope = "row";
    line.append(name, ...columns.map((column) => cell("td", queue[column].toLocaleString())));
    return line;
  };
  async function show() {
    try {
      const answer = await fetch("/api/queue/stats");
      if (answer.status === 401) return say("The counts are old: your session is over. Load this page again to sign in.");
      if (!answer.ok) throw new Error("status " + answer.status);
      const { stats } = await answer.json();
      document.querySelector("tbody").replaceChildren(...stats.map(row));
      say(stats.length > 0 ? "Counted again every 2 seconds." : "No queue yet: a queue exists from its first job on.");
    } catch (error) {
      say("The counts are old, the server did not answer: " + error.message);
    }
  }
  async function greet() {
    const answer = await fetch("/auth/session");
    const { kind, name, email, role, expires_at: until } = answer.ok ? await answer.json() : {};
    if (!until) return;
    const who = document.getElementById("who");
    const out = Object.assign(document.createElement("a"), { href: "/auth/logout", textContent: "Sign out" });
    who.replaceChildren((name ?? email ?? kind) + ", " + role + ". ", out);
  }
  greet().catch(() => undefined);
  for (const place of document.querySelectorAll(".origin")) place.textContent = location.origin;
  setInterval(() => document.hidden || show(), 2000);
  show();`;

const origin = '<span class="origin">http://localhost:3003</span>';

const page = pageOf(
  "Millrace",
  `<main>
<h1>Millrace</h1>
<p>The console comes later. Until then: what is in the queues, and the lines to work with them.</p>
<p id="who"></p>
<h2 id="queues">Queues</h2>
<p id="state" role="status"><noscript>Without scripts, look at <a href="/api/queue/stats">/api/queue/stats</a>.</noscript></p>
<div class="scroll" role="region" aria-labelledby="queues" tabindex="0">
<table>
<thead><tr><th scope="col">Queue</th><th scope="col">Waiting</th><th scope="col">Delayed</th><th scope="col">Active</th><th scope="col">Completed</th><th scope="col">Failed</th><th scope="col">Total</th></tr></thead>
<tbody></tbody>
</table>
</div>
<h2>Look</h2>
<ul>
<li><a href="/admin/queues">/admin/queues</a>: Bull Board, to look and to press buttons</li>
<li><a href="/jobs">/jobs</a>: the newest jobs</li>
<li><a href="/dlq">/dlq</a>: the jobs that were given up, and why</li>
<li><a href="/api/queue/stats">/api/queue/stats</a>: the counts above</li>
<li><a href="/health/test">/health/test</a>: whether database, schema and disk are fit for work</li>
</ul>
<h2>Do</h2>
<pre tabindex="0"><code>curl ${origin}/jobs -H 'content-type: application/json' -d '{"task":"my-task","input":{}}'
curl -X POST ${origin}/jobs/JOB_ID/retry
curl -X POST ${origin}/api/queue/default/pause
curl -X POST ${origin}/api/queue/default/resume</code></pre>
</main>`,
  script,
);

/** Whoever links to it may add what they like. */
const anyQuery = z.looseObject({});

/** Made once, for the document is large and anybody may ask for it. */
function written(document: object): { readonly bytes: Uint8Array<ArrayBuffer>; readonly etag: string } {
  const bytes = new TextEncoder().encode(JSON.stringify(document));
  return { bytes, etag: `"${hash("sha256", bytes, "base64url")}"` };
}

/** `document`: the one at /openapi.json, which tells of these two too. */
export function pageEndpoints(document: () => object): Endpoints {
  let made: ReturnType<typeof written> | undefined;
  return [
    endpoint("Documents", "GET /", {
      summary: "A page with live counts, and where to look",
      role: "viewer",
      query: anyQuery,
      answers: { 200: { contentType: "text/html", about: "The page." } },
      handle: ({ c }) => c.body(page.html, 200, { ...page.headers, "Cache-Control": "no-cache" }),
    }),
    endpoint("Documents", "GET /openapi.json", {
      summary: "This API as an OpenAPI 3.1 document",
      role: "public",
      routeClass: "public",
      query: anyQuery,
      answers: { 200: z.looseObject({ openapi: z.string() }), 304: null },
      handle({ c }) {
        made ??= written(document());
        c.header("ETag", made.etag);
        c.header("Cache-Control", "no-cache");
        if (isKnown(c.req.header("if-none-match"), made.etag)) return c.body(null, 304);
        return c.body(made.bytes, 200, { "Content-Type": "application/json" });
      },
    }),
  ];
}

/** Whether the caller has it already. Proxies that compress make its tag a weak one. */
function isKnown(held: string | undefined, etag: string): boolean {
  return (held ?? "").split(",").some((one) => one.trim() === "*" || one.trim().replace(/^W\//, "") === etag);
}
