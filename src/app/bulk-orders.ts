/** What people tell many jobs to do at once, and the dead letters it is mostly told to. `Millrace` has these verbs. */
import { MillraceError } from "../core/errors.ts";
import { checkedName, refuseUnknown, show, wholeNumber } from "../core/options.ts";
import { isUuid } from "../core/uuid.ts";
import { type BulkOperation, findBulks, insertBulk, stopBulk } from "../jobs/bulk-store.ts";
import { type BulkAction, countMatching, countMax } from "../jobs/bulk-walk-store.ts";
import {
  type DeadLetterCount,
  type DeadLetterGroup,
  countDeadLetters,
  deadLetterGroups,
} from "../jobs/dead-letters-store.ts";
import type { EnqueueOptions } from "../jobs/enqueue-options.ts";
import type { Enqueued } from "../jobs/enqueue.ts";
import type { AnyTask } from "../jobs/task.ts";
import { type BulkFilter, type BulkOptions, type BulkPreview, readBulk } from "./bulk.ts";
import { bulkTask } from "./built-in.ts";
import { Orders, signatureOf } from "./orders.ts";

const bulkListNames: ReadonlySet<string> = new Set(["limit", "after"]);
const stopNames: ReadonlySet<string> = new Set(["by"]);
const deadLetterNames: ReadonlySet<string> = new Set(["queue", "task", "reason", "errorCode"]);

export abstract class BulkOrders extends Orders {
  readonly #bulkTask = bulkTask(this);

  abstract enqueue(task: AnyTask, input: unknown, options?: EnqueueOptions): Promise<Enqueued>;

  /** Dead letters counted by what they have in common, the largest group first. */
  async deadLetters(
    group: DeadLetterGroup,
    filter: { queue?: string; task?: string; reason?: string; errorCode?: string } = {},
  ): Promise<DeadLetterCount[]> {
    this.mustBeOpen();
    refuseUnknown("deadLetters", filter, deadLetterNames);
    if (!deadLetterGroups.includes(group))
      throw new MillraceError(
        "OPTION_INVALID",
        `group must be one of ${deadLetterGroups.join(", ")}, not ${show(group)}.`,
      );
    const { reason, errorCode } = filter;
    const found = await this.idsOf(filter);
    return found === undefined ? [] : countDeadLetters(this.db, group, { ...found, reason, errorCode });
  }

  /**
   * One action on all jobs that match, as a job of its own that workers of the queue `maintenance` carry out, some hundred jobs per
   * transaction. Jobs that come later are not touched. With `dryRun`, only counts. Throws `FILTER_TOO_WIDE`, `QUEUE_NOT_FOUND`, `TASK_NOT_FOUND`.
   */
  bulk(action: BulkAction, filter: BulkFilter, options: BulkOptions & { dryRun: true }): Promise<BulkPreview>;
  bulk(action: BulkAction, filter: BulkFilter, options?: BulkOptions & { dryRun?: false }): Promise<BulkOperation>;
  bulk(action: BulkAction, filter: BulkFilter, options?: BulkOptions): Promise<BulkPreview | BulkOperation>;
  async bulk(action: BulkAction, filter: BulkFilter, options: BulkOptions = {}): Promise<BulkPreview | BulkOperation> {
    this.mustBeOpen();
    const plan = readBulk(action, filter, options);
    // A name that nothing has would be an operation on no job, taken for one that is done.
    if (plan.filter.queue !== undefined) await this.names.queues.existing(plan.filter.queue);
    if (plan.filter.task !== undefined) await this.names.tasks.existing(plan.filter.task);
    const { queue } = plan.options;
    const queueId = queue === undefined || plan.dryRun ? undefined : await this.names.queues.id(queue);
    const order = { action, filter: plan.filter, options: { ...plan.options, queueId } };
    const counted = await countMatching(this.db, order);
    const moreThanExpected = counted > countMax;
    const expected = Math.min(counted, countMax);
    if (plan.dryRun) return { action, expected, moreThanExpected };
    const { perSecond, by } = plan;
    const stored = { ...order, options: { ...order.options, ...(moreThanExpected ? { moreThanExpected } : {}) } };
    const id = await this.db.lend(async (tx) => {
      const job = await this.enqueue(this.#bulkTask, {}, { tx, ...(by === null ? {} : { by }) });
      await insertBulk(this.db.adopt(tx), { ...stored, id: job.id, expected, perSecond, by });
      return job.id;
    });
    return this.bulkOperation(id);
  }

  /** Throws `BULK_NOT_FOUND`. */
  async bulkOperation(id: string): Promise<BulkOperation> {
    this.mustBeOpen();
    const [found] = isUuid(id) ? await findBulks(this.db, { id, limit: 1 }) : [];
    if (found !== undefined) return found;
    throw new MillraceError("BULK_NOT_FOUND", `There is no bulk operation ${id}.`);
  }

  /** The newest first. `after`: the id of the last one of the page before. */
  async bulkOperations(options: { limit?: number; after?: string } = {}): Promise<BulkOperation[]> {
    this.mustBeOpen();
    refuseUnknown("bulkOperations", options, bulkListNames);
    const limit = wholeNumber(options.limit ?? 100, "limit", 1, 500);
    if (options.after !== undefined && !isUuid(options.after))
      throw new MillraceError("OPTION_INVALID", "after must be the id of a bulk operation.");
    return findBulks(this.db, { limit, after: options.after });
  }

  /** Ends it behind the batch it is at. What was done stays done; one that has ended is left as it is. */
  async stopBulk(id: string, options: { by?: string } = {}): Promise<BulkOperation> {
    refuseUnknown("stopBulk", options, stopNames);
    const { id: found } = await this.bulkOperation(id);
    await stopBulk(this.db, found, signatureOf(options).by);
    return this.bulkOperation(found);
  }

  /** The numbers of a queue and a task; undefined when one of them has none yet, and no job therefore. */
  protected async idsOf(named: {
    queue?: string;
    task?: string;
  }): Promise<{ queue?: number; task?: number } | undefined> {
    const { queues, tasks } = this.names;
    const queue = named.queue === undefined ? undefined : await queues.find(checkedName(named.queue, "queue"));
    const task = named.task === undefined ? undefined : await tasks.find(checkedName(named.task, "task"));
    if ((named.queue !== undefined && queue === undefined) || (named.task !== undefined && task === undefined))
      return undefined;
    return { ...(queue === undefined ? {} : { queue }), ...(task === undefined ? {} : { task }) };
  }
}
