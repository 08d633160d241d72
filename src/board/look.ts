/** One look at everything that all queues share: however many queues a request is about, each question is asked once. */
import type { Millrace } from "../app/millrace.ts";
import type { Policy } from "../jobs/policy.ts";
import type { WorkerInfo } from "../jobs/registry-store.ts";
import type { QueueStats } from "../jobs/stats-store.ts";
import type { ScheduleInfo } from "../schedules/info.ts";
import { type MoreCounts, countMore } from "./store.ts";

/** Schedules read at a time, the most there may be. */
const schedulesPage = 1_000;

export class Look {
  readonly stats: () => Promise<QueueStats[]>;
  readonly more: () => Promise<MoreCounts[]>;
  readonly policies: () => Promise<Policy[]>;
  readonly workers: () => Promise<WorkerInfo[]>;
  readonly schedules: () => Promise<ScheduleInfo[]>;

  constructor(mill: Millrace) {
    this.stats = once(() => mill.stats());
    this.more = once(() => countMore(mill.db));
    this.policies = once(() => mill.policies.list());
    this.workers = once(() => mill.workers());
    this.schedules = once(() => allSchedules(mill));
  }
}

async function allSchedules(mill: Millrace): Promise<ScheduleInfo[]> {
  const all: ScheduleInfo[] = [];
  for (let page: ScheduleInfo[] | undefined; page === undefined || page.length === schedulesPage;) {
    const after = page?.at(-1)?.name;
    page = await mill.schedules.list({ limit: schedulesPage, ...(after === undefined ? {} : { after }) });
    all.push(...page);
  }
  return all;
}

function once<Answer>(ask: () => Promise<Answer>): () => Promise<Answer> {
  let answer: Promise<Answer> | undefined;
  return () => (answer ??= ask());
}
