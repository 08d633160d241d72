/**
 * Whether the audit is whole. Every hash is computed again here, not by the function of the database that made it: whoever changes the
 * one does not change the other. Retention and those who append may go on meanwhile.
 */
import { createHash } from "node:crypto";
import type { Executor } from "../db/database.ts";
import { type Link, findUndead, readChain } from "./audit-store.ts";

/** `checkpoint`: the record of where the chain begins and ends is not what the rows say. */
type BreakKind = "changed row" | "missing row" | "bad link" | "broken checkpoint";

interface AuditBreak {
  /** The first row that is wrong; of rows that are missing, the first one of them. Null: there is none to name. */
  readonly id: number | null;
  readonly kind: BreakKind;
  /** A sentence. */
  readonly message: string;
}

export interface Verification {
  readonly whole: boolean;
  /** Rows before the first break, or all. */
  readonly verified: number;
  /** The newest of them. Its hash stands for everything before it: kept elsewhere, it proves that also whoever owns the database changed nothing. */
  readonly last: { readonly id: number; readonly hash: string } | null;
  readonly break: AuditBreak | null;
}

const chunk = 1_000;

export async function verifyAudit(db: Executor): Promise<Verification> {
  let verified = 0;
  let last: Verification["last"] = null;
  /** Where the next row must go on. */
  let end = { id: 0, hash: "" };
  const broken = (kind: BreakKind, id: number | null, message: string): Verification => ({
    whole: false,
    verified,
    last,
    break: { id, kind, message },
  });

  const undead = await findUndead(db);
  if (undead !== undefined)
    return broken("broken checkpoint", undead, `Row ${undead} is there, and is recorded as deleted by retention.`);
  for (;;) {
    const { checkpoint, links } = await readChain(db, end.id, chunk);
    if (checkpoint === undefined)
      return broken("broken checkpoint", null, "The record of where the chain begins and ends is gone.");
    const { deletedId, deletedHash, lastId, lastHash } = checkpoint;
    // At the beginning, and when retention has overtaken this.
    if (end.hash === "" || end.id < deletedId) end = { id: deletedId, hash: deletedHash };
    for (const link of links) {
      const { id } = link;
      if (link.prevHash !== end.hash) {
        if (id > end.id + 1) return broken("missing row", end.id + 1, missing(end.id + 1, id - 1));
        if (verified === 0)
          return broken("broken checkpoint", id, `Row ${id} does not go on where retention is recorded to have ended.`);
        return broken("bad link", id, `Row ${id} does not carry the hash of row ${end.id} before it.`);
      }
      if (link.hash !== hashOf(link)) return broken("changed row", id, `Row ${id} is not what its hash was made of.`);
      verified += 1;
      last = end = { id, hash: link.hash };
    }
    if (links.length === chunk) continue;
    if (end.hash === lastHash) return { whole: true, verified, last, break: null };
    if (end.id < lastId) return broken("missing row", end.id + 1, missing(end.id + 1, lastId));
    return broken("broken checkpoint", end.id, `Row ${end.id} is not the one that is recorded as the newest.`);
  }
}

function missing(from: number, to: number): string {
  return from === to ? `Row ${from} is missing.` : `Rows ${from} to ${to} are missing, or some of them.`;
}

function hashOf({ prevHash, fields }: Link): string {
  const hash = createHash("sha256").update(Buffer.from(prevHash, "hex"));
  for (const field of fields) hash.update(field === null ? "-" : `${Buffer.byteLength(field)}:${field}`);
  return hash.digest("hex");
}
