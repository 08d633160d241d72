/** Bulk operations and counted dead letters for the commands, straight from the database or through an API; see jobs-door.ts. */
import type { BulkFilter, BulkOptions } from "../app/bulk.ts";
import type { Millrace } from "../app/millrace.ts";
import { begunView, bulkView, type previewView } from "../http/bulk-view.ts";
import type { BulkAction } from "../jobs/bulk-walk-store.ts";
import type { DeadLetterGroup } from "../jobs/dead-letters-store.ts";
import { given } from "./arguments.ts";
import { ask } from "./ask-api.ts";
import type { Wire } from "./door.ts";

export type BulkItem = Wire<ReturnType<typeof bulkView>>;
export type Preview = ReturnType<typeof previewView>;

interface DeadLetterGroups {
  readonly group: DeadLetterGroup;
  readonly groups: readonly {
    readonly value: string;
    readonly count: number;
    readonly oldest: Date | string;
    readonly newest: Date | string;
  }[];
  readonly total: number;
}

export interface BulkDoor {
  /** A preview with `dryRun`. Throws `FILTER_TOO_WIDE`. */
  bulk(action: BulkAction, filter: BulkFilter, options: BulkOptions): Promise<BulkItem | Preview>;
  bulkOperations(limit: number): Promise<BulkItem[]>;
  /** Throws `BULK_NOT_FOUND`. */
  bulkOperation(id: string): Promise<BulkItem>;
  stopBulk(id: string, options: { by?: string }): Promise<BulkItem>;
  deadLetters(
    group: DeadLetterGroup,
    filter: Pick<BulkFilter, "queue" | "task" | "reason" | "errorCode">,
  ): Promise<DeadLetterGroups>;
}

export function bulkDirect(mill: Millrace): BulkDoor {
  return {
    bulk: async (action, filter, options) => begunView(await mill.bulk(action, filter, options)),
    bulkOperations: async (limit) => (await mill.bulkOperations({ limit })).map(bulkView),
    bulkOperation: async (id) => bulkView(await mill.bulkOperation(id)),
    stopBulk: async (id, options) => bulkView(await mill.stopBulk(id, options)),
    async deadLetters(group, filter) {
      const groups = await mill.deadLetters(group, filter);
      return { group, groups, total: groups.reduce((sum, { count }) => sum + count, 0) };
    },
  };
}

export function bulkOverHttp(url: string): BulkDoor {
  const wire = ({ errorCode, olderThan, ...filter }: BulkFilter): object =>
    given({ ...filter, error_code: errorCode, older_than: olderThan });
  return {
    bulk: (action, filter, { dryRun, perSecond, ...options }) =>
      ask(url, "/api/bulk", {
        action,
        filter: wire(filter),
        ...given({ ...options, preview: dryRun, per_second: perSecond }),
      }),
    bulkOperations: async (limit) => (await ask<{ items: BulkItem[] }>(url, `/api/bulk?limit=${limit}`)).items,
    bulkOperation: (id) => ask(url, `/api/bulk/${encodeURIComponent(id)}`),
    stopBulk: (id, options) => ask(url, `/api/bulk/${encodeURIComponent(id)}/stop`, options),
    deadLetters(group, filter) {
      const query = new URLSearchParams({ ...(wire(filter) as Record<string, string>), group }).toString();
      return ask(url, `/dlq?${query}`);
    },
  };
}
