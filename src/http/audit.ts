/** The operations on the audit: reading it, and asking whether it is whole. */
import { z } from "zod";
import { type AuditEntry, listAudit } from "../audit/audit-store.ts";
import { type Verification, verifyAudit } from "../audit/verify.ts";
import type { Database } from "../db/database.ts";
import { type Endpoints, endpoint } from "./endpoint.ts";
import { storable } from "./read.ts";

const exactly = storable.max(1_000).optional();
const listQuery = z.strictObject({
  by: exactly,
  action: exactly,
  subject: exactly,
  limit: z.coerce.number().int().min(1).max(500).default(100),
  after: z
    .string()
    .regex(/^\d{1,18}$/, "expected the `next` of a page of this list")
    .optional(),
});

const text = z.string().nullable();
const auditEntry = z
  .object({
    id: z.string().describe("In the order of the chain."),
    at: z.iso.datetime(),
    by: text.describe("The caller, or the name that an order was signed with."),
    action: z.string(),
    subject: z.string(),
    details: z.unknown(),
    actor_kind: z.enum(["program", "machine", "token", "user"]).nullable(),
    actor: text,
    role: text,
    address: text,
    request_id: text,
    outcome: z.enum(["allow", "deny", "error"]).nullable().describe("Null: an order, which was carried out."),
    hash: z.string().describe("SHA-256 in hex; docs/guides/audit.md says of what."),
  })
  .meta({ id: "AuditEntry" });
const verification = z
  .object({
    whole: z.boolean(),
    verified: z.int().min(0).describe("Rows before the first break, or all."),
    last: z.object({ id: z.int(), hash: z.string() }).nullable().describe("The newest of them."),
    break: z
      .object({
        id: z.int().nullable(),
        kind: z.enum(["changed row", "missing row", "bad link", "broken checkpoint"]),
        message: z.string(),
      })
      .nullable(),
  })
  .meta({ id: "AuditVerification" });

export function auditEndpoints(db: Database): Endpoints {
  return [
    endpoint("Audit", "GET /api/audit", {
      summary: "What people and programs did, the newest first",
      role: "admin",
      query: listQuery,
      answers: { 200: z.object({ items: z.array(auditEntry), next: text }).meta({ id: "AuditPage" }) },
      async handle({ query }) {
        const { limit, after, ...filter } = query;
        return auditPage(await listAudit(db, filter, { limit, after }), limit);
      },
    }),
    endpoint("Audit", "GET /api/audit/verify", {
      summary: "Whether the audit is whole: every row as it was written, none taken out; and if not, the first break",
      role: "admin",
      answers: { 200: verification },
      handle: (): Promise<Verification> => verifyAudit(db),
    }),
  ];
}

/** `next` is the `after` of the page that follows, null at the end. */
function auditPage(entries: readonly AuditEntry[], limit: number) {
  const items = entries.map(({ actorKind, requestId, ...rest }) => ({
    ...rest,
    actor_kind: actorKind,
    request_id: requestId,
  }));
  return { items, next: (items.length === limit ? items.at(-1)?.id : undefined) ?? null };
}
