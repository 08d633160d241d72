/** How calls of the client fail: with the API's own code, or with one that says why there was no answer of the API. */
import type { ErrorCode, Problem } from "./openapi.generated.ts";

interface Facts {
  readonly code: ErrorCode;
  readonly message: string;
  readonly action: string;
  readonly problem?: Problem;
  readonly response?: Response;
  readonly cause?: unknown;
}

/** Thrown by every call that did not go well. One that was aborted throws what `fetch` does: the signal's reason. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  /** Stable. A server newer than this client may have others than those in the list. */
  readonly code: ErrorCode;
  /** What to do about it, one sentence. */
  readonly action: string;
  /** Of the answer; undefined when nothing answered. */
  readonly status: number | undefined;
  /** The server's log has the request under it. */
  readonly requestId: string | undefined;
  /** When trying again can help, if the server says so, in ms. */
  readonly retryAfterMs: number | undefined;
  /** What the API answered (RFC 9457): some problems have members of their own. */
  readonly problem: Problem | undefined;

  constructor({ code, message, action, problem, response, cause }: Facts) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.action = action;
    this.status = response?.status;
    this.requestId = problem?.instance;
    const seconds = response?.headers.get("retry-after");
    this.retryAfterMs = seconds && /^\d+$/.test(seconds) ? Number(seconds) * 1_000 : undefined;
    this.problem = problem;
  }
}

/** What the API answered to a request to `url`. Throws what it refused. */
export async function answerOf(response: Response, url: string): Promise<unknown> {
  const type = response.headers.get("content-type") ?? "";
  if (response.ok && type.startsWith("text/event-stream")) return response.body;
  const text = await response.text();
  const body = /^application\/(problem\+)?json\b/.test(type) ? jsonOf(text) : text;
  // No program is answered with a page: some proxies refuse with one, and with the status of a success.
  if (response.ok && body !== undefined && !type.startsWith("text/html")) return body === "" ? undefined : body;
  if (type.startsWith("application/problem+json") && body !== undefined) {
    const problem = body as Problem;
    throw new ApiError({ code: problem.code, message: problem.detail, action: problem.action, problem, response });
  }
  throw new ApiError({
    code: "API_ANSWER_INVALID",
    message: `What answers at ${new URL(url).origin} is not Millrace: status ${response.status}, ${type || "no content type"}.`,
    action: "Check the url, and what stands between here and there, such as a proxy.",
    response,
  });
}

/** Undefined: it is none. */
function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

export function unreachable(url: string, cause: unknown): ApiError {
  const { message, cause: deeper } = cause as Error; // Node says only "fetch failed", and why in the cause
  return new ApiError({
    code: "API_UNREACHABLE",
    message: `No Millrace answers at ${new URL(url).origin}: ${(deeper as Error | undefined)?.message || message}.`,
    action: "Check the url, and that `millrace up` runs there.",
    cause,
  });
}
