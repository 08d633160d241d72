/**
 * Who asks for what is being done. It is known where a request comes in, and belongs in the audit beside every order that the request gives,
 * whatever name the order is signed with; between the two nobody need hand it on.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import { type Sql, sql } from "../db/sql.ts";
import type { NewAuditEntry } from "./audit-store.ts";

export type Actor = Pick<NewAuditEntry, "actorKind" | "actor" | "role" | "address" | "requestId">;

const asking = new AsyncLocalStorage<Actor>();

/** How many give orders at present. */
let giving = 0;

/** Orders that `what` gives carry this actor. */
export async function actingAs<Result>(actor: Actor, what: () => Result | Promise<Result>): Promise<Result> {
  giving += 1;
  try {
    return await asking.run(actor, what);
  } finally {
    giving -= 1;
    // Node 20 asks each storage that is in use at every promise of the process, those of jobs too: twice the price of an await.
    if (giving === 0) asking.disable();
  }
}

/** Columns of the audit, and what an order writes into them: nulls where no request has given it. */
export const actorColumns: Sql = sql`actor_kind, actor, role, address, request_id`;

export function actorNow(): Sql {
  const { actorKind = null, actor = null, role = null, address = null, requestId = null } = asking.getStore() ?? {};
  return sql`${actorKind}::text, ${actor}::text, ${role}::text, ${address}::text, ${requestId}::text`;
}
