/** Asks the API of a running `millrace up`. Its problems come back as the errors they were. */
import { type ErrorCode, MillraceError, errorCodes } from "../core/errors.ts";

const answerWithinMs = 30_000;

export type Method = "GET" | "POST" | "PATCH" | "DELETE";

/** `extraMs`: what the answer may take beyond the usual. Throws what the API says, and `OPTION_INVALID` when nothing answers there. */
export async function ask<Answer>(
  { url, headers }: { readonly url: string; readonly headers: Readonly<Record<string, string>> },
  method: Method,
  path: string,
  body?: object,
  extraMs = 0,
): Promise<Answer> {
  const signal = AbortSignal.timeout(answerWithinMs + extraMs);
  const request = requestOf(method, body);
  return answerOf(await reach(url, path, { ...request, headers: { ...request.headers, ...headers }, signal }), url);
}

/** Throws `OPTION_INVALID` when nothing answers there. */
export async function reach(base: string, path: string, init: RequestInit): Promise<Response> {
  try {
    // A redirect would take the token elsewhere.
    return await fetch(base.replace(/\/+$/, "") + path, { ...init, redirect: "error" });
  } catch (cause) {
    const reason = ((cause as Error).cause as Error | undefined)?.message ?? (cause as Error).message;
    const message = `No Millrace answers at ${base}: ${reason}. Is \`millrace up\` running there?`;
    throw new MillraceError("OPTION_INVALID", message, { cause });
  }
}

export function requestOf(
  method: Method,
  body: object | undefined,
): { method: Method; headers: Record<string, string>; body?: string } {
  if (body === undefined) return { method, headers: {} };
  return { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
}

/** What the response says; throws the error that a problem was. */
export async function answerOf<Answer>(response: Response, base: string): Promise<Answer> {
  const answer = (await response.json().catch(() => ({}))) as Answer & { code?: string; detail?: string };
  if (response.ok) return answer;
  const { code, detail = `${base} answered with status ${response.status}.` } = answer;
  throw new MillraceError(code !== undefined && code in errorCodes ? (code as ErrorCode) : "INTERNAL", detail);
}

/** A path with the conditions that were given. Throws `OPTION_INVALID` for an empty one, which the API would take for none. */
export function withQuery(path: string, conditions: Readonly<Record<string, string | number | undefined>>): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(conditions)) {
    if (value === "") throw new MillraceError("OPTION_INVALID", `${name} must not be empty.`);
    if (value !== undefined) query.set(name, String(value));
  }
  return query.size === 0 ? path : `${path}?${query.toString()}`;
}
