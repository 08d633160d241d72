/**
 * A request that changes something may carry an `Idempotency-Key`. What it was answered first is kept, and asked again under the same key
 * the same caller gets that answer, and nothing is done a second time. The key is held before anything is done: two at once are never both let through.
 */
import { createHash } from "node:crypto";
import { z } from "zod";
import { beginAnswer, giveBackAnswer, type KeptAnswer, keepAnswer } from "../access/kept-answers-store.ts";
import type { Caller } from "../access/roles.ts";
import { MillraceError, errorCodes } from "../core/errors.ts";
import type { Log } from "../core/log.ts";
import type { Database } from "../db/database.ts";
import type { Endpoint, Once } from "./endpoint.ts";
import type { ApiContext } from "./env.ts";
import { codeOf, problemOf } from "./problem.ts";

/** For the document. */
export const keyHeader = z.strictObject({
  "Idempotency-Key": z
    .string()
    .min(1)
    .max(255)
    .optional()
    .describe(
      "Asked again under the same key within 24 hours, the same caller gets the first answer, with `Idempotent-Replayed: true`, and nothing is done again.",
    ),
});

export const replayedHeader = "Idempotent-Replayed";

/** Longer answers are not kept; a repeat is told so. */
const longestBody = 65_536;
const keptHeaders = ["content-type", "location"];
/** Most changes take less. */
const underWayMs = 1_000;

export class Repeats {
  readonly #db: Database;
  readonly #log: Log;

  constructor(db: Database, log: Log) {
    this.#db = db;
    this.#log = log;
  }

  /** Undefined without a key, or where none is heeded. Throws `BAD_REQUEST`. */
  of(c: ApiContext, one: Endpoint): Once | undefined {
    const key = c.req.header("idempotency-key");
    if (key === undefined || one.kept === "never") return undefined;
    if (!keyHeader.safeParse({ "Idempotency-Key": key }).success)
      throw new MillraceError("BAD_REQUEST", "Idempotency-Key: expected 1 to 255 characters.");
    const id = hashOf([nameOf(c.get("caller")), one.method, one.path, key]);
    return async ({ query, body }, answer) => {
      const begun = await beginAnswer(this.#db, id, hashOf([c.req.path, query, body]));
      if (begun === "mine") return this.#first(c, id, one, answer);
      return again(c, begun);
    };
  }

  async #first(c: ApiContext, id: string, one: Endpoint, answer: () => Promise<Response>): Promise<Response> {
    try {
      const response = await answer();
      await this.#keep(c, id, response, one.kept === "marker");
      return response;
    } catch (error) {
      const { status } = errorCodes[codeOf(error as Error)];
      if (lasts(status)) await this.#keep(c, id, problemOf(error as Error, c, this.#log), false);
      else await this.#try(c, () => giveBackAnswer(this.#db, id));
      throw error;
    }
  }

  async #keep(c: ApiContext, id: string, response: Response, markerOnly: boolean): Promise<void> {
    const { status } = response;
    if (!lasts(status)) return this.#try(c, () => giveBackAnswer(this.#db, id));
    const text = response.body === null ? null : await response.clone().text();
    const headers = Object.fromEntries([...response.headers].filter(([name]) => keptHeaders.includes(name)));
    const left = markerOnly || (text !== null && Buffer.byteLength(text) > longestBody);
    return this.#try(c, () => keepAnswer(this.#db, id, { status, headers, body: left ? undefined : text }));
  }

  /** It is done, and the answer does not depend on whether a repeat could be given it. */
  async #try(c: ApiContext, write: () => Promise<void>): Promise<void> {
    try {
      await write();
    } catch (error) {
      this.#log.error({ err: error, request_id: c.get("requestId") }, "answer.not_kept");
    }
  }
}

/** Whether asking again would end the same: not after a failure of ours, nor for who is to wait. */
const lasts = (status: number): boolean => status < 500 && status !== 429;

function again(c: ApiContext, begun: "other" | "under way" | KeptAnswer): Response {
  if (begun === "other")
    throw new MillraceError("IDEMPOTENCY_KEY_REUSED", "This Idempotency-Key was given with another request.");
  if (begun === "under way") {
    const error = new MillraceError(
      "IDEMPOTENCY_CONFLICT",
      "The first request under this Idempotency-Key is under way.",
    );
    throw Object.assign(error, { retryAfterMs: underWayMs });
  }
  const { status, headers, body } = begun;
  if (body === undefined)
    throw new MillraceError(
      "IDEMPOTENCY_CONFLICT",
      `The first request under this Idempotency-Key was answered with ${status}; that answer is told only once, or is too long to be kept.`,
    );
  return c.body(body as string, status as 200, { ...headers, [replayedHeader]: "true" });
}

function nameOf(caller: Caller | undefined): readonly unknown[] {
  return caller?.session ? [caller.kind, caller.session.issuer, caller.session.sub] : [caller?.kind, caller?.name];
}

const hashOf = (parts: readonly unknown[]): string => createHash("sha256").update(JSON.stringify(parts)).digest("hex");
