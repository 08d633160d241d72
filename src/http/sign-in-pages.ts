/**
 * What people at browsers see around signing in: where to show a token, how to sign out, and what was refused. Programs get the same
 * refusals as problems.
 */
import { accepts } from "hono/accepts";
import { localUrl } from "../access/sign-in.ts";
import type { Caller } from "../access/roles.ts";
import { type ErrorCode, errorCodes } from "../core/errors.ts";
import { isForPeople } from "./endpoint.ts";
import type { ApiContext } from "./env.ts";
import { tokenIn } from "./gate.ts";
import { type Page, escaped, pageOf } from "./html.ts";
import { type Refuse, problem, refusalHeaders, titleOf } from "./problem.ts";

/** The ways in, the first of them as a button. */
const waysIn = (signsIn: boolean, first = "Sign in"): string =>
  signsIn
    ? `<a class="button" href="/auth/login">${first}</a> <a href="/auth/token">Use a token</a>`
    : '<a class="button" href="/auth/token">Use a token</a>';

/** Never kept: what is behind it is there once somebody has signed in. */
export const send = (
  c: ApiContext,
  { html, headers }: Page,
  status: (typeof errorCodes)[ErrorCode]["status"] | 200 = 200,
): Response => c.body(html, status, { ...headers, "Cache-Control": "no-store" });

const tokenScript = `
  const form = document.querySelector("form");
  const state = document.getElementById("state");
  const button = form.querySelector("button");
  form.hidden = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    state.textContent = "";
    try {
      const answer = await fetch("/auth/token", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ token: form.elements.token.value.trim() }),
      });
      if (answer.ok) return location.pathname.startsWith("/auth/") ? location.assign("/") : location.reload();
      const problem = await answer.json();
      state.textContent = problem.detail + (answer.status === 401 ? "" : " " + problem.action);
    } catch {
      state.textContent = "The server did not answer: try again.";
    }
    button.disabled = false;
    form.elements.token.select();
  });
  form.elements.token.focus();`;

/** `detail`: why one is here, if one did not want to. */
export function tokenPage(detail: string | undefined, signsIn: boolean): Page {
  return pageOf(
    "Millrace: sign in with a token",
    `<main class="narrow">
<h1>Sign in with a token</h1>
${detail === undefined ? "" : `<p>${escaped(detail)}</p>\n`}<p>Paste a token of this server. Whoever runs it makes one: <code>millrace token create me --role operator</code>.</p>
<form hidden>
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" spellcheck="false" required aria-describedby="state">
<p id="state" role="alert"></p>
<p class="next"><button class="button">Sign in</button>${signsIn ? ' <a href="/auth/login">Without a token</a>' : ""}</p>
</form>
<noscript><p>This page takes scripts. Programs send the token with each request: <code>Authorization: Bearer …</code></p></noscript>
<p class="small">The browser does not keep the token: it gets a session that may do what the token may. It ends when you sign out, when it is not used, and with the token.</p>
</main>`,
    tokenScript,
  );
}

const signOutScript = `
  const button = document.querySelector("button");
  const state = document.getElementById("state");
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const answer = await fetch("/auth/logout", { method: "POST", headers: { "X-Millrace-CSRF": "1" } });
      // 401: it was over already.
      if (answer.ok || answer.status === 401) return location.reload();
      state.textContent = (await answer.json()).detail;
    } catch {
      state.textContent = "The server did not answer: try again.";
    }
    button.disabled = false;
  });`;

export function signOutPage(caller: Caller | undefined, signsIn: boolean): Page {
  if (caller?.session === undefined)
    return pageOf(
      "Millrace: signed out",
      `<main class="narrow">
<h1>You are not signed in</h1>
<p>${caller === undefined ? "This browser has no session." : "This server knows you without a session: there is nothing to sign out of."}</p>
<p class="next">${waysIn(signsIn)} <a href="/">Millrace</a></p>
${signsIn ? '<p class="small">The identity provider may know you still: signing in again may ask you nothing.</p>\n' : ""}</main>`,
    );
  const { name, role, session } = caller;
  return pageOf(
    "Millrace: sign out",
    `<main class="narrow">
<h1>Sign out</h1>
<p>You are <strong>${escaped(session.name ?? name ?? "somebody without a name")}</strong>, with the role ${role}.</p>
<p id="state" role="alert"></p>
<p class="next"><button class="button">Sign out</button> <a href="/">Stay</a></p>
<p class="small">This session ends by itself at ${session.expiresAt.toISOString().slice(0, 16).replace("T", " ")} UTC, and earlier when it is not used.</p>
</main>`,
    signOutScript,
  );
}

function refusalPage(c: ApiContext, code: ErrorCode, detail: string, signsIn: boolean): Page {
  const { status, action } = errorCodes[code];
  const title = titleOf(code);
  return pageOf(
    `Millrace: ${title}`,
    `<main class="narrow">
<h1>${title}</h1>
<p>${escaped(detail)}</p>
<p>${escaped(action)}</p>
<p class="next">${waysIn(signsIn, "Try again")}</p>
<p class="small"><code>${code}</code>, status ${status}<br>Request <code>${escaped(c.get("requestId"))}</code></p>
</main>`,
  );
}

/**
 * How refusals are said: as a problem, or to a browser as a page. One that opens something without a session is sent to sign in, and comes
 * back; where there is no identity provider, it is asked for a token on the spot. `origin`: where to sign in; undefined: nowhere.
 */
export function refusals(origin: string | undefined): Refuse {
  const signsIn = origin !== undefined;
  return (c, code, detail, extras) => {
    const forPeople = isForPeople(c.req.path);
    const opens = code === "UNAUTHORIZED" && (c.req.method === "GET" || c.req.method === "HEAD");
    if (!takesPages(c) || !(forPeople || opens)) return problem(c, code, detail, extras);
    // Who shows a token with each request would be refused again, however often they signed in.
    const enters = opens && !forPeople && tokenIn(c) === undefined;
    c.header("Vary", "Accept");
    if (enters && signsIn) {
      c.header("Cache-Control", "no-store");
      return c.redirect(signInUrl(c, origin), 303);
    }
    const page = enters ? tokenPage(detail, signsIn) : refusalPage(c, code, detail, signsIn);
    const headers = { ...page.headers, ...refusalHeaders(code, extras) };
    return send(c, { ...page, headers }, errorCodes[code].status);
  };
}

/** Programs say nothing or that they take anything; browsers name HTML first when somebody opens an address, and only then. */
function takesPages(c: ApiContext): boolean {
  const supports = ["application/json", "application/problem+json", "text/html"];
  return accepts(c, { header: "Accept", supports, default: "application/json" }) === "text/html";
}

/** Begun where browsers find the server, however this one found it: the cookies of a sign-in are that host's. */
function signInUrl(c: ApiContext, origin: string): string {
  const { pathname, search } = new URL(c.req.url);
  const wanted = pathname + search;
  const url = new URL("/auth/login", origin);
  if (localUrl(wanted, origin) !== undefined) url.searchParams.set("return_to", wanted);
  return url.href;
}
