/** The client inside a Prisma interactive transaction. */
import type { ForeignTransaction } from "../db/database.ts";
import { notATransaction } from "./transaction.ts";

interface PrismaTransaction {
  $queryRawUnsafe(text: string, ...values: unknown[]): PromiseLike<unknown>;
  /** Only the client outside of transactions has it. */
  $connect?: never;
}

/** What `enqueue` takes as `tx`, and `complete`. Throws `OPTION_INVALID` when given something that would commit by itself. */
export function fromPrisma(tx: PrismaTransaction): ForeignTransaction {
  if (typeof tx.$connect === "function") throw notATransaction("fromPrisma", "prisma.$transaction(async (tx) => …)");
  return { query: async (text, values) => ({ rows: (await tx.$queryRawUnsafe(text, ...values)) as unknown[] }) };
}
