/** The settings of queues: `mill.policies`. */
import { MillraceError } from "../core/errors.ts";
import { checkedName, textOrNull, wholeNumber } from "../core/options.ts";
import type { Database } from "../db/database.ts";
import { type IngestDecision, readDenials } from "../jobs/admission-store.ts";
import type { Names } from "../jobs/names.ts";
import { type Policy, type PolicyChanges, policyOf, readChanges } from "../jobs/policy.ts";
import {
  type PolicyDecision,
  deletePolicy,
  readPolicies,
  readPolicyDecisions,
  writePolicy,
} from "../jobs/policy-store.ts";

export class Policies {
  readonly #db: Database;
  readonly #names: Names;
  readonly #channel: string;

  constructor(db: Database, names: Names, channel: string) {
    this.#db = db;
    this.#names = names;
    this.#channel = channel;
  }

  /** Of all queues that have one, by name. */
  async list(): Promise<Policy[]> {
    return (await readPolicies(this.#db)).map(policyOf);
  }

  /** Undefined when the queue has none. Throws `QUEUE_NOT_FOUND`. */
  async get(queue: string): Promise<Policy | undefined> {
    const [row] = await readPolicies(this.#db, await this.#existing(queue));
    return row && policyOf(row);
  }

  /**
   * Changes what is named and leaves the rest; works on a queue that had no job yet. Limits hold for every claim that begins after this
   * has returned; what runs already is not stopped. Throws `OPTION_UNKNOWN`, `OPTION_INVALID`.
   */
  async set(queue: string, changes: PolicyChanges, options: { by?: string } = {}): Promise<Policy> {
    const stored = readChanges(changes);
    const id = await this.#names.queues.id(checkedName(queue, "queue"));
    await writePolicy(this.#db, this.#channel, id, stored, textOrNull(options.by, "by", 200));
    const policy = await this.get(queue);
    if (policy !== undefined) return policy;
    throw new MillraceError("POLICY_NOT_FOUND", `The policy of queue "${queue}" was removed in the same moment.`);
  }

  /** Takes every limit away. False when there was no policy. */
  async remove(queue: string, options: { by?: string } = {}): Promise<boolean> {
    return deletePolicy(this.#db, this.#channel, await this.#existing(queue), textOrNull(options.by, "by", 200));
  }

  /** What storm control decided, the newest first. `limit` 1 to 500, default 100. */
  async decisions(queue: string, options: { limit?: number } = {}): Promise<PolicyDecision[]> {
    const limit = wholeNumber(options.limit ?? 100, "limit", 1, 500);
    return readPolicyDecisions(this.#db, await this.#existing(queue), limit);
  }

  /** What was not let in, the newest first. `limit` 1 to 500, default 100. */
  async denials(options: { queue?: string; limit?: number } = {}): Promise<IngestDecision[]> {
    const queue = options.queue === undefined ? undefined : checkedName(options.queue, "queue");
    return readDenials(this.#db, queue, wholeNumber(options.limit ?? 100, "limit", 1, 500));
  }

  #existing(queue: string): Promise<number> {
    return this.#names.queues.existing(checkedName(queue, "queue"));
  }
}
