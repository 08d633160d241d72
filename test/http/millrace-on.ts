/** A Millrace on a database that answers as the test has it. */
import { Millrace, defineApp } from "millrace";
import type { Database } from "../../src/db/database.ts";
import { recorder } from "./caller.ts";

export function millraceOn(db: Database): Millrace {
  return new Millrace(defineApp({ tasks: [] }), db, {
    log: recorder(),
    now: Date.now,
    random: Math.random,
    maxPayloadBytes: 1_000,
    maxEnqueuePerMinute: null,
    scheduler: false,
    maintenance: { everyMs: 0, archiveAfterMs: 0, pruneAfterMs: 0, keepFailedMs: 0 },
  });
}
