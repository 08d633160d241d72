/** Asks the API of a running `millrace up`. Its problems come back as the errors they were. */
import { type ErrorCode, MillraceError, errorCodes } from "../core/errors.ts";

const answerWithinMs = 30_000;

/** With a body it is a POST; `extraMs`: what the answer may take beyond the usual. Throws what the API says, and `OPTION_INVALID` when nothing answers there. */
export async function ask<Answer>(base: string, path: string, body?: object, extraMs = 0): Promise<Answer> {
  const request: RequestInit = { signal: AbortSignal.timeout(answerWithinMs + extraMs) };
  if (body !== undefined) {
    request.method = "POST";
    request.headers = { "Content-Type": "application/json" };
    request.body = JSON.stringify(body);
  }
  let response: Response;
  try {
    response = await fetch(base.replace(/\/+$/, "") + path, request);
  } catch (cause) {
    const reason = ((cause as Error).cause as Error | undefined)?.message ?? (cause as Error).message;
    const message = `No Millrace answers at ${base}: ${reason}. Is \`millrace up\` running there?`;
    throw new MillraceError("OPTION_INVALID", message, { cause });
  }
  const answer = (await response.json().catch(() => ({}))) as Answer & { code?: string; detail?: string };
  if (response.ok) return answer;
  const { code, detail = `${base} answered with status ${response.status}.` } = answer;
  throw new MillraceError(code !== undefined && code in errorCodes ? (code as ErrorCode) : "INTERNAL", detail);
}
